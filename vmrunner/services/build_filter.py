"""The filter of a list of builds, as people write it: words of a query, of options, of Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypedDict, TypeVar

from vmrunner.config import field_checks
from vmrunner.errors import ConfigError
from vmrunner.lib import units
from vmrunner.lib.moments import moment
from vmrunner.model import BuildChoice, BuildState, Result
from vmrunner.model.principals import OIDC

Word = TypeVar("Word", bound=StrEnum)
Words = str | Iterable[str] | None
Time = units.Duration | datetime | None

#: Words for states together.
ACTIVE: Final = "active"
_STATES: Final = tuple(BuildState)
_OPEN: Final = frozenset(BuildState) - {BuildState.FINISHED}
MOST_ACTORS: Final = 20  # actors at once
LONGEST_WORD: Final = 500  # characters of a word


class FilterWords(TypedDict, total=False):
    """Words of a filter. `state`, `result` and `actor`: one, or several of which any will do."""

    state: Words
    result: Words
    name: str | None
    actor: Words
    provider: str | None
    since: Time
    until: Time


def choice(
    words: FilterWords,
    now: float,
    *,
    labels: Mapping[str, str] | None = None,
    issuers: Iterable[str] = (),
    **more: Any,
) -> BuildChoice:
    """The choice that they are. `issuers`: those whose identities an actor may be by its `sub`
    alone; `more`: other fields of it. Raises ConfigError."""
    active, states = _states(words.get("state"))
    since = _moment(words.get("since"), "since", now)
    until = _moment(words.get("until"), "until", now)
    if since is not None and until is not None and since > until:
        raise ConfigError(
            f"since: {words.get('since')} is after until {words.get('until')}",
            hint="the earlier one is since",
        )
    return BuildChoice(
        active=active,
        states=states,
        results=_of(Result, words.get("result"), "result"),
        name=_name(words.get("name")),
        actors=_actors(words.get("actor"), issuers),
        provider=_one(words.get("provider"), "provider"),
        since=since,
        until=until,
        labels=dict(
            units.check_label(name, value)
            for name, value in field_checks.table(labels or {}, "labels").items()
        ),
        **more,
    )


def _listed(words: Words, field: str) -> list[str]:
    if words is None or isinstance(words, str):
        return [] if words is None else [words]
    if not isinstance(words, Iterable):
        field_checks.text(words, field)
    return list(words)


def _of(kind: type[Word], words: Words, field: str, others: Iterable[str] = ()) -> list[Word]:
    """The members of these names, each once. Raises ConfigError."""
    names = [member.value for member in kind]
    found = _listed(words, field)
    for word in found:
        if word not in names:
            raise ConfigError(
                f"{field}: no {field} {field_checks.text(word, field)[:60]!r}",
                hint=units.did_you_mean(word, [*names, *others]),
            )
    return [kind(word) for word in dict.fromkeys(found)]


def _states(words: Words) -> tuple[bool | None, list[BuildState]]:
    """`active` is all but `finished`, also beside others."""
    found = _listed(words, "state")
    states = set(_of(BuildState, [word for word in found if word != ACTIVE], "state", [ACTIVE]))
    if ACTIVE in found:
        states |= _OPEN
    if states in (_OPEN, {BuildState.FINISHED}):
        return states == _OPEN, []
    return None, [] if states == set(_STATES) else [s for s in _STATES if s in states]


def _moment(value: Time, field: str, now: float) -> float | None:
    return None if value is None else moment(value, field, now)


def _name(word: str | None) -> str | None:
    """A build's name, or the beginning of one and `*`."""
    if word is None:
        return None
    text = _one(word, "name") or ""
    start, star, rest = text.partition("*")
    if star and not (start or rest):
        raise ConfigError("name: '*' has no beginning", hint="leave it out: all names are meant")
    if rest:
        raise ConfigError(
            f"name: {text[:60]!r} has a * that is not at its end",
            hint="write a name, or the beginning of one and * (nightly*)",
        )
    return text


def _actors(words: Words, issuers: Iterable[str]) -> list[str]:
    found = [_one(word, "actor") or "" for word in _listed(words, "actor")]
    if len(found) > MOST_ACTORS:
        raise ConfigError(f"actor: {len(found)} are too many", hint=f"at most {MOST_ACTORS}")
    theirs = [f"{OIDC}{issuer}#{word}" for word in found for issuer in issuers if "#" not in word]
    return [*found, *theirs]


def _one(word: str | None, field: str) -> str | None:
    if word is None:
        return None
    text = field_checks.text(word, field)
    if len(text) > LONGEST_WORD or not text.isprintable():
        raise ConfigError(
            f"{field}: {text[:60]!r} is too long or not printable",
            hint=f"at most {LONGEST_WORD} printable characters",
        )
    return text
