"""Pools, as ops see them: what is wished of one."""

from __future__ import annotations

import pytest

from vmrunner.errors import ConfigError
from vmrunner.services import pools


@pytest.mark.parametrize("size", [-1, 10_001, 10**20])
def test_no_pool_is_wished_a_size_without_bounds(size: int) -> None:
    with pytest.raises(ConfigError, match="is not within 0 to 10000"):
        pools.resize(None, "fast", size)  # type: ignore[arg-type]
