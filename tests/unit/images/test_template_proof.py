"""The proof of a template, without a VM."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from vmrunner.errors import ImageError
from vmrunner.images import templates
from vmrunner.session.ssh.client import Connection


class SilentConnection:
    """One whose peer takes a command and says nothing more."""

    def call(self, *_: Any, pulse: Callable[[], float]) -> None:
        for _ in range(100):
            time.sleep(min(pulse(), 0.01))


def test_a_clone_that_answers_nothing_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "RESUMED", 0.05)
    with pytest.raises(ImageError, match="answers nothing"):
        templates._ask(cast(Connection, SilentConnection()))
