"""People behind builds: names of tokens and of identities, in the place of ids."""

from __future__ import annotations

from collections.abc import Iterable
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


def who(row: BuildRecord) -> str:
    """The submitter of a build, for people: a token's name, an identity's subject, a user."""
    if row.actor.startswith(OIDC):
        return row.actor.rpartition("#")[2]
    return row.actor_name or row.actor
