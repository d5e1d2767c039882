"""The `filter` of a list: AIP-160 with `=`, `!=`, `<`, `:` and AND, OR, NOT, or regular expressions
with `eq` and `ne`. What the service may know and this does not is refused, never guessed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from vmrunner_localclouds.gce.api_error import GceRefusal
from vmrunner_localclouds.gce.discovery import Json

Matches = Callable[[Json], bool]

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<open>\()|(?P<close>\))|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<op>!=|<=|>=|=|<|>|:)|(?P<word>[^\s()=!<>:"']+))""",
    re.VERBOSE,
)
_WORDS: Final = ("AND", "OR", "NOT")


def compiled(text: str) -> Matches:
    """Raises `GceRefusal` for what is no filter."""
    tokens = list(_tokens(text))
    if {"eq", "ne"} & {value for kind, value in tokens if kind == "word"} and any(
        kind == "op" for kind, _ in tokens
    ):
        raise _bad(text)
    parser = _Parser(text, tokens)
    found = parser.all_of()
    if parser.rest:
        raise _bad(text)
    return found


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            raise _bad(text)
        at = found.end()
        yield found.lastgroup, found[found.lastgroup]


class _Parser:
    """OR binds closer than AND, and AND need not be said."""

    def __init__(self, text: str, tokens: list[tuple[str, str]]) -> None:
        self._text = text
        self.rest = tokens

    def all_of(self) -> Matches:
        parts = [self._any_of()]
        while self.rest and self.rest[0][0] != "close":
            self._took("AND")
            parts.append(self._any_of())
        return lambda resource: all(part(resource) for part in parts)

    def _any_of(self) -> Matches:
        parts = [self._one()]
        while self._took("OR"):
            parts.append(self._one())
        return lambda resource: any(part(resource) for part in parts)

    def _one(self) -> Matches:
        if self._took("NOT"):
            part = self._one()
            return lambda resource: not part(resource)
        kind, value = self._next()
        if kind == "open":
            inner = self.all_of()
            if self._next()[0] != "close":
                raise _bad(self._text)
            return inner
        if kind != "word" or value in _WORDS:
            raise _bad(self._text)
        return self._comparison(value)

    def _comparison(self, field: str) -> Matches:
        if field.startswith("-"):
            raise _unknown(self._text)
        kind, op = self._next()
        if kind == "text" and field.endswith("."):
            field, (kind, op) = field + op[1:-1], self._next()  # labels."key"
        if kind != "op" and op not in ("eq", "ne"):
            raise _bad(self._text)
        kind, value = self._next()
        if kind not in ("word", "text"):
            raise _bad(self._text)
        quoted = kind == "text"
        if quoted:
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        return _comparing(field, op, value, quoted=quoted, text=self._text)

    def _took(self, word: str) -> bool:
        if self.rest[:1] != [("word", word)]:
            return False
        del self.rest[0]
        return True

    def _next(self) -> tuple[str, str]:
        if not self.rest:
            raise _bad(self._text)
        return self.rest.pop(0)


def _comparing(field: str, op: str, value: str, *, quoted: bool, text: str) -> Matches:
    if op in ("eq", "ne"):
        pattern = re.compile(value)
        return lambda resource: (
            bool(pattern.fullmatch(_text(_read(resource, field)) or "")) is (op == "eq")
        )
    if op == ":" and value == "*" and not quoted:
        return lambda resource: _read(resource, field) is not None
    if op in ("=", ":", "!=") and "*" in value:
        if "*" in value[:-1] or op == "!=":
            raise _unknown(text)
        return lambda resource: (_text(_read(resource, field)) or "").startswith(value[:-1])
    if op in ("=", ":"):
        return lambda resource: _text(_read(resource, field)) == value
    if op == "!=":
        return lambda resource: _text(_read(resource, field)) not in (None, value)
    return _ordered(field, op, value)


def _ordered(field: str, op: str, value: str) -> Matches:
    tests: dict[str, Callable[[Any, Any], bool]] = {
        "<": lambda a, b: bool(a < b),
        ">": lambda a, b: bool(a > b),
        "<=": lambda a, b: bool(a <= b),
        ">=": lambda a, b: bool(a >= b),
    }
    test = tests[op]

    def matches(resource: Json) -> bool:
        found = _text(_read(resource, field))
        if found is None:
            return False
        if found.lstrip("-").isdigit() and value.lstrip("-").isdigit():
            return test(int(found), int(value))
        return test(found, value)

    return matches


def _read(resource: Json, field: str) -> Any:
    value: Any = resource
    for part in field.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, (dict, list)):
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _bad(text: str) -> GceRefusal:
    return GceRefusal(
        400, "invalid", f"Invalid value for field 'filter': '{text}'. Invalid list filter"
    )


def _unknown(text: str) -> GceRefusal:
    return GceRefusal(501, "notImplemented", f"not in this cloud: the filter {text}")
