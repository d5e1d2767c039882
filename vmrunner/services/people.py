"""People behind builds: names of tokens and of identities, in the place of ids."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from vmrunner.model import BuildRecord
from vmrunner.model.principals import OF_TOKEN, OIDC

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger


_NAMED: Final = (OF_TOKEN, OIDC)


def named(ledger: Ledger, rows: Iterable[BuildRecord]) -> list[BuildRecord]:
    """Return builds with the names of who submitted them."""
    listed = list(rows)
    names = of_builds(ledger, listed)
    return [replace(row, actor_name=names.get(row.actor, "")) for row in listed]


def of_builds(ledger: Ledger, rows: Iterable[BuildRecord]) -> Mapping[str, str]:
    """The names of those who submitted these builds, by actor, as far as they have one."""
    return of_actors(ledger, {row.actor for row in rows})


def of_actors(ledger: Ledger, actors: Collection[str]) -> Mapping[str, str]:
    """The names of these, by actor, as far as they have one."""
    return ledger.tokens.names({actor for actor in actors if actor.startswith(_NAMED)})


def names(ledger: Ledger, actors: Collection[str]) -> Mapping[str, str]:
    """Return each actor's name for people: a token's name, an identity's subject, a user; itself
    where it has none."""
    found = of_actors(ledger, actors)
    return {actor: found.get(actor) or _plain(actor) for actor in actors}


def name(ledger: Ledger, actor: str) -> str:
    """Return one actor's."""
    return names(ledger, {actor})[actor]


def who(row: BuildRecord) -> str:
    """The submitter of a build, for people: a token's name, an identity's subject, a user."""
    return row.actor_name or _plain(row.actor)


def _plain(actor: str) -> str:
    return actor.rpartition("#")[2] if actor.startswith(OIDC) else actor
