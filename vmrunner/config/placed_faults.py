"""Faults with the place at which each was written, and several of them told together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from vmrunner.errors import ConfigError

_LINE: Final = re.compile(r":(\d+): \Z")
#: What messages call the keys of a request that have another name in it.
_KEYS: Final = {
    "artifact": "artifacts",
    "cache": "caches",
    "fallback of a cache": "caches",
    "key of a cache": "caches",
    "path of a cache": "caches",
    "command": "steps",
    "label": "labels",
    "secret": "secrets",
    "timeout of a step": "steps",
}


def key_of(message: str) -> str:
    """The key of a job file, or of a request's body, that a message is about ("max-ttl: …")."""
    name = message.partition(":")[0]
    return _KEYS.get(name, name.replace("-", "_"))


def placed(error: ConfigError, place: str) -> ConfigError:
    """The same, with where it was written: "FILE:LINE: ", "FILE: " or ""."""
    found = _LINE.search(place)
    line = int(found[1]) if found else 0
    return ConfigError(f"{place}{error.args[0]}", hint=error.hint, line=line)


def together(errors: Iterable[ConfigError]) -> ConfigError:
    """All of them, each once and by line: the first, and the others as its `more`."""
    distinct: dict[str, ConfigError] = {}
    for error in errors:
        alone = ConfigError(str(error.args[0]), hint=error.hint, line=error.line)
        for fault in (alone, *error.more):
            distinct.setdefault(str(fault), fault)
    first, *more = sorted(distinct.values(), key=lambda fault: fault.line)
    return ConfigError(str(first.args[0]), hint=first.hint, more=more, line=first.line)
