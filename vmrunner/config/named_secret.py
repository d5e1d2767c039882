"""Secrets that a configuration names: a variable, or @ and the path of a file. The secret itself is
never written there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from vmrunner.errors import ConfigError
from vmrunner.lib import local_files, units


def check(value: str) -> str:
    """Raises ValueError for what names neither a variable nor a file."""
    if value.startswith("@"):
        if not Path(value[1:]).is_absolute():
            raise ValueError("not an absolute path; such as @/etc/vmrunner/chat.secret")
        return value
    try:
        return units.env_name(value, "secret")
    except ConfigError:
        raise ValueError(
            "neither a variable's name nor @ and a path; the secret itself is not written here"
        ) from None


def read(reference: str, field: str, environ: Mapping[str, str] = os.environ) -> bytes:
    """Read the secret that this names. Raises ConfigError; `field` is what names it."""
    if not reference.startswith("@"):
        if not environ.get(reference):
            # In another case than variables have it may be the secret, written there itself.
            shown = reference if reference == reference.upper() else "the variable that it names"
            raise ConfigError(f"{field}: {shown} is not set", hint="set it, or use @FILE")
        return environ[reference].encode()
    path = Path(reference[1:])
    try:
        local_files.refuse_public(path)
        found = local_files.read(path)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(
            f"{field}: {path} cannot be read: {why}", hint="make it, with mode 600"
        ) from None
    if not found:
        raise ConfigError(f"{field}: {path} is empty", hint="write the secret into it")
    return found.encode()
