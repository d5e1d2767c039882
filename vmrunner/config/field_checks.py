"""Checks of single values that a user gives, whoever he gives them to: command line, job file or
Python. Each raises `ConfigError` with field, value and fix. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from vmrunner.errors import ConfigError
from vmrunner.lib import units

#: What Linux gives a new process: 128 KiB for each variable, 2 MiB for all that it starts with, of
#: which the image and a step's own words need some.
VARIABLE_BYTES: Final = 128 << 10
ENVIRONMENT_BYTES: Final = (2 << 20) - (256 << 10)
_POINTER: Final = 8
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE: Final = re.compile(
    rf"(?:(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:\d+/))(?::\d+)?/)?"
    rf"{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?",
    re.ASCII,
)
LEAST_MEMORY: Final = 256 << 20
LEAST_DISK: Final = 1 << 30
_INT: Final = (1 << 31) - 1  # what every database holds


def text(value: object, field: str) -> str:
    """Text that is not empty: an unset variable must not turn into a default."""
    said = characters(value, field)
    if not said.strip():
        raise ConfigError(f"{field}: empty", hint="give it a value, or leave it out")
    return said


def characters(value: object, field: str) -> str:
    """Any text that can be written down."""
    if not isinstance(value, str):
        raise ConfigError(f"{field}: {_short(value)} is not text", hint="put it in quotes")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{field}: {_short(value)} is not UTF-8", hint="pass it as a file"
        ) from None
    return value


def whole(value: object, field: str, least: int = -_INT, most: int = _INT) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{field}: {_short(value)} is not a whole number", hint="such as 1")
    if value < least:
        raise ConfigError(f"{field}: {value} is too little", hint=f"at least {least}")
    if value > most:
        raise ConfigError(f"{field}: {value} is too much", hint=f"at most {most}")
    return value


def flag(value: object, field: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{field}: {_short(value)} is neither true nor false", hint="give one")
    return value


def several(value: object, field: str) -> Sequence[Any]:
    """A list, and not one text, whose letters would be taken for its items."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise ConfigError(f"{field}: {_short(value)} is not a list", hint=f"{field}=[…]")
    return value


def table(value: object, field: str) -> Mapping[str, str]:
    """Text by name."""
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{field}: {_short(value)} is not a mapping", hint=f"{field}={{'NAME': 'VALUE'}}"
        )
    return {
        text(key, f"{field}: a name"): characters(item, f"{field}: {key}")
        for key, item in value.items()
    }


def container(value: str) -> str:
    if not _IMAGE.fullmatch(value) or len(value) > 512:
        raise ConfigError(
            f"container: {value!r} is not a container image's name",
            hint="such as debian:trixie or registry.example.org/team/image:tag",
        )
    return value


def at_least(count: int, field: str, least: int) -> int:
    """A size that is no less than what a VM can do with."""
    if count < least:
        raise ConfigError(
            f"{field}: {units.amount(count)} is too little", hint=f"at least {units.amount(least)}"
        )
    return count


def secret(value: str) -> str:
    """`NAME` or `NAME=@FILE`, as a file may name a secret."""
    name, equals, rest = characters(value, "secret").partition("=")
    units.env_name(name, "secret")
    if equals and (not rest.startswith("@") or rest == "@" or "\0" in rest):
        raise ConfigError(f"secret: {name} is given a value here", hint=f"{name}, or {name}=@FILE")
    return value


def environment(env: Mapping[str, str], secrets: Mapping[str, bytes], steps: Sequence[Any]) -> None:
    """Can a process be started with it?"""
    fixed = {name: len(value.encode()) for name, value in env.items()}
    fixed |= {name: len(value) for name, value in secrets.items()}
    for step in steps:
        sizes = fixed | {name: len(value.encode()) for name, value in step.env.items()}
        total = 0
        for name, size in sizes.items():
            room = len(name) + size + 2  # `=`, and the NUL at the end
            if room > VARIABLE_BYTES:
                raise ConfigError(
                    f"env: {name} has {units.amount(size)}, and no process can be given more than "
                    f"{units.amount(VARIABLE_BYTES)}",
                    hint="pass it as a file, with the source",
                )
            total += room + _POINTER
        if total > ENVIRONMENT_BYTES:
            raise ConfigError(
                f"env: {len(sizes)} variables take {units.amount(total)}, and no process can be "
                f"given more than {units.amount(ENVIRONMENT_BYTES)}",
                hint="pass them as a file, with the source",
            )


def word(value: str) -> None:
    """Can it be one word of a command?"""
    size = len(value.encode())
    if size >= VARIABLE_BYTES:
        raise ConfigError(
            f"command: a word of {units.amount(size)}, and no process can be given more than "
            f"{units.amount(VARIABLE_BYTES)}",
            hint="pass it as a file, with the source",
        )


def _short(value: object) -> str:
    said = repr(value)
    return said if len(said) <= 60 else f"{said[:57]}..."
