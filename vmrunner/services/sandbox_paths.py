"""Paths in a sandbox."""

from __future__ import annotations

import os
import posixpath

from vmrunner.errors import ConfigError


def absolute(path: str) -> str:
    """Return a path from the root. Raises ConfigError for what is none."""
    if not isinstance(path, str) or not path or "\0" in path:
        raise ConfigError(f"path: {path!r} names no file", hint="such as /work/a.py")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise ConfigError(f"path: {path!r} is not UTF-8", hint="such as /work/a.py") from None
    return posixpath.normpath(posixpath.join("/work", path))
