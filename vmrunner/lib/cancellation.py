"""Calls with a waiter in another thread, who may go away."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Final

LOOK: Final = 0.5  # seconds between looks of who waits for something else

_gone: ContextVar[threading.Event | None] = ContextVar("gone", default=None)


class Abandoned(BaseException):
    """The waiter of this call has left."""


def watch(gone: threading.Event) -> None:
    """Let this thread's call end once `gone` is set, where it waits for something."""
    _gone.set(gone)


def check() -> None:
    """Raise Abandoned, once, where the waiter of this call has left: its cleaning up goes on."""
    gone = _gone.get()
    if gone is not None and gone.is_set():
        _gone.set(None)
        raise Abandoned
