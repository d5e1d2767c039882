"""Checks of what a build says of its caches. Each raises `ConfigError` with field, value and fix.
Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from vmrunner.config.field_checks import characters, few, several
from vmrunner.errors import ConfigError
from vmrunner.lib import globs
from vmrunner.model import CacheRule

CACHES: Final = 20  # of one build
KEY: Final = 512  # characters, once it says what the source's files made of it
PATH: Final = 1024
FALLBACKS: Final = 10
#: What a key may hold in braces: a glob of files of the source, whose contents it is to name.
HASH: Final = re.compile(r"\{hash:([^{}]+)\}")
#: Where nothing is a build's to keep.
_FOREIGN: Final = ("/proc", "/sys", "/dev", "/run/secrets", "/var/run/secrets", "/vmrunner")
_SOURCE: Final = "/work"
_PARTS: Final = frozenset({"key", "path", "fallback"})


def cache_rules(value: object, field: str) -> tuple[CacheRule, ...]:
    """Rules from a list of rules, or of tables with `key`, `path` and maybe `fallback`."""
    rules = tuple(map(_rule, few(several(value, field), CACHES, field)))
    for number, rule in enumerate(rules):
        for other in rules[:number]:
            outer, inner = sorted((rule.path, other.path), key=len)
            if inner == outer or _below(inner, outer):
                raise ConfigError(
                    f"cache: {rule.path!r} and {other.path!r} are one in the other",
                    hint="one cache, or paths that have nothing in common",
                )
    return rules


def option(text: str) -> CacheRule:
    """KEY=PATH, as the command line has it."""
    key, mark, path = characters(text, "cache").rpartition("=/")
    if not mark:
        raise ConfigError(f"cache: {text!r} is not KEY=PATH", hint="such as pip=/root/.cache/pip")
    return _rule(CacheRule(key=key, path=f"/{path}"))


def _rule(value: Any) -> CacheRule:
    if isinstance(value, Mapping):
        if unknown := sorted(value.keys() - _PARTS):
            raise ConfigError(f"cache: no part {unknown[0]!r}", hint="key, path and fallback")
        if missing := [part for part in ("key", "path") if part not in value]:
            raise ConfigError(f"cache: it has no {missing[0]}", hint="give it one")
        value = CacheRule(
            key=value["key"],
            path=value["path"],
            fallback=tuple(several(value.get("fallback", ()), "fallback of a cache")),
        )
    if not isinstance(value, CacheRule):
        raise ConfigError("cache: not a table", hint='{"key": "pip", "path": "/root/.cache/pip"}')
    check_path(value.path)
    check_key(value.key)
    for begin in few(value.fallback, FALLBACKS, "fallback of a cache"):
        check_fallback(begin)
    return value


def check_path(value: object) -> str:
    """Return the path of a directory in the container that a build may keep."""
    path = characters(value, "path of a cache")
    if not path.startswith("/") or len(path) > PATH or not path.isprintable():
        raise ConfigError(
            f"cache: {path[:80]!r} is no path in the container", hint="such as /root/.cache/pip"
        )
    if path != "/" + "/".join(part for part in path.split("/") if part not in ("", ".", "..")):
        raise ConfigError(
            f"cache: {path!r} is not written plainly", hint="without //, . or .., or a / at its end"
        )
    if path == "/" or any(path == foreign or _below(path, foreign) for foreign in _FOREIGN):
        raise ConfigError(
            f"cache: {path!r} is no build's to keep", hint="a directory that it fills"
        )
    if path == _SOURCE or any(_below(foreign, path) for foreign in (_SOURCE, *_FOREIGN)):
        raise ConfigError(
            f"cache: {path!r} holds what is not the cache's", hint=f"a directory in it: {path}/…"
        )
    return path


def check_key(value: object) -> str:
    """Return a key, which may still hold `{hash:GLOB}`."""
    key = _text(value, "key of a cache")
    for glob in globs_of(key):
        globs.check(glob, "cache")
    if set("{}") & set(HASH.sub("", key)):
        raise ConfigError(
            f"cache: {key[:80]!r} has braces that mean nothing", hint="{hash:GLOB}, or none"
        )
    return key


def check_fallback(value: object) -> str:
    """Return the beginning of a key."""
    begin = _text(value, "fallback of a cache")
    if set("{}") & set(begin):
        raise ConfigError(
            f"cache: the fallback {begin[:80]!r} has braces", hint="what stands before {hash:…}"
        )
    return begin


def globs_of(key: str) -> Iterator[str]:
    """Yield the globs that a key holds."""
    return (found[1] for found in HASH.finditer(key))


def _text(value: object, field: str) -> str:
    checked = characters(value, field)
    if not 0 < len(checked) <= KEY or not checked.isprintable() or checked != checked.strip():
        raise ConfigError(
            f"{field}: {checked[:40]!r} cannot be one", hint=f"1 to {KEY} printable characters"
        )
    return checked


def _below(path: str, above: str) -> bool:
    return path.startswith(f"{above}/")


def paths(rules: Sequence[CacheRule]) -> str:
    """Return the rules in one line, for people."""
    return ", ".join(f"{rule.key}={rule.path}" for rule in rules)
