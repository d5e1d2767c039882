"""People behind builds: names of tokens and of identities, in the place of ids."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from vmrunner.model import BuildRecord
from vmrunner.model.principals import OF_TOKEN, OIDC

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger


def named(ledger: Ledger, rows: Iterable[BuildRecord]) -> list[BuildRecord]:
    """Return builds with the names of the tokens that submitted them."""
    listed = list(rows)
    names = ledger.tokens.names({row.actor for row in listed if row.actor.startswith(OF_TOKEN)})
    return [replace(row, actor_name=names.get(row.actor, "")) for row in listed]


def names(ledger: Ledger, actors: Collection[str]) -> Mapping[str, str]:
    """Return each actor's name for people: a token's name, an identity's subject, a user; itself
    where it has none."""
    found = ledger.tokens.names({actor for actor in actors if actor.startswith(OF_TOKEN)})
    return {actor: found.get(actor) or _plain(actor) for actor in actors}


def who(row: BuildRecord) -> str:
    """The submitter of a build, for people: a token's name, an identity's subject, a user."""
    return row.actor_name or _plain(row.actor)


def _plain(actor: str) -> str:
    return actor.rpartition("#")[2] if actor.startswith(OIDC) else actor
