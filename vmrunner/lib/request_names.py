"""The name of the HTTP request at hand, for logs and problems: the caller's, or one made for it."""

from __future__ import annotations

import os
import re
from contextvars import ContextVar
from typing import Final

#: Empty where no request is at hand. Each request has a task, and so a context, of its own.
CURRENT: Final[ContextVar[str]] = ContextVar("request", default="")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


def begin(wanted: str) -> str:
    """Name this request as its caller wants it, where that is a word that harms no log."""
    name = wanted if _NAME.fullmatch(wanted) else os.urandom(8).hex()
    CURRENT.set(name)
    return name
