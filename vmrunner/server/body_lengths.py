"""Lengths of what the body of a build or a sandbox says, held before any of it is parsed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from vmrunner.errors import ConfigError
from vmrunner.lib import units

TEXT: Final = 512  # characters of a field that is not named here
NAME: Final = 256  # … of a field's or variable's name
#: Characters of others.
LENGTHS: Final[Mapping[str, int]] = {
    "timeout": 64, "ttl": 64, "max_ttl": 64, "queue_timeout": 64, "keep_on_failure": 64,
    "keep_logs": 64, "memory": 64, "disk": 64, "source_name": 1000,
    "network": 32 << 10,  # a hundred names in one word
}  # fmt: skip
#: Characters of all words of commands and all variables: a script is one line of `run`.
WORDS: Final = 256 << 10


def check(body: Mapping[str, Any]) -> None:
    """Raise ConfigError for a text that is too long, or too many words."""
    for name, value in body.items():
        _name(name, "the body")
        _text(name, value)
    for table in ("env", "labels", "secrets"):
        for name in body.get(table) or {} if isinstance(body.get(table), dict) else ():
            _name(name, table)
    network = body.get("network")
    hosts = network.get("allow") if isinstance(network, dict) else None
    for host in hosts if isinstance(hosts, list) else []:
        _text("network", host, TEXT)
    steps = body.get("steps")
    size = _size(body.get("env"))
    for step in steps if isinstance(steps, list) else []:
        size += _size(step)
        if isinstance(step, dict):
            size += _size(step.get("argv")) + _size(step.get("env"))
            for name in ("name", "timeout"):
                _text(name, step.get(name))
    if size > WORDS:
        raise ConfigError(
            f"steps: words of commands and variables have {units.amount(size)} together, and "
            f"{units.amount(WORDS)} may be",
            hint="pass them as a file, with the source, or write the command into `run`",
        )


def _name(name: str, field: str) -> None:
    if len(name) > NAME:
        raise ConfigError(
            f"{field}: the name {name[:40]!r}… has {len(name)} characters, and {NAME} may be",
            hint="a shorter one",
        )


def _text(name: str, value: object, most: int | None = None) -> None:
    limit = LENGTHS.get(name, TEXT) if most is None else most
    if isinstance(value, str) and len(value) > limit:
        shown = "it" if "secret" in name else f"{value[:40]!r}…"
        raise ConfigError(
            f"{name[:80]}: {shown} has {len(value)} characters, and {limit} may be",
            hint="a shorter one",
        )


def _size(value: object) -> int:
    """Characters of a list of words or a table of variables, each item with two more
    for what is around it."""
    return sum(len(text) + 2 for text in _texts(value))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, str))
    elif isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, str) and name != "run":
                yield from (name, item)
