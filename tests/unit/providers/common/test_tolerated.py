"""`tolerated`: the codes that it names, and nothing else."""

from __future__ import annotations

import pytest

from vmrunner.errors import Uncertain
from vmrunner.providers.common.call_failed import CallFailed, tolerated


def test_a_code_that_is_tolerated_ends_the_block() -> None:
    done = []
    with tolerated({"NotFound"}):
        raise CallFailed("NotFound", Uncertain("it is not there"))
    with tolerated({"NotFound"}):
        done.append(True)
    assert done


@pytest.mark.parametrize("error", [CallFailed("", Uncertain("silent")), KeyError("NotFound")])
def test_any_other_error_leaves_it(error: Exception) -> None:
    with pytest.raises(type(error)), tolerated({"NotFound"}):
        raise error
