"""Tokens of the HTTP API: made, listed, revoked. Each is an action that is noted."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from vmrunner.config import field_checks
from vmrunner.errors import ConfigError
from vmrunner.lib import process, units
from vmrunner.model import Token, TokenQuota, TokenScope

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger

#: Seconds. Of times far beyond no clock tells the date.
LONGEST_VALIDITY: Final = 100 * 365 * 86_400.0


def scopes(words: Iterable[str]) -> frozenset[TokenScope]:
    """Scopes as they are written. Raises ConfigError."""
    found = set()
    for word in words:
        if word not in list(TokenScope):
            raise ConfigError(
                f"scope: no scope {word!r}",
                hint=units.did_you_mean(word, [scope.value for scope in TokenScope]),
            )
        found.add(TokenScope(word))
    if not found:
        raise ConfigError("scope: missing", hint=f"some of {', '.join(TokenScope)}")
    return frozenset(found)


def create(
    ledger: Ledger,
    name: str,
    allowed: frozenset[TokenScope],
    *,
    labels: Mapping[str, str],
    quota: TokenQuota,
    expires: float | None,
    by: str = "",
) -> tuple[str, Token]:
    """Make a token; `expires`: in so many seconds. Return it as it is shown, this once, and its
    row. Raises ConfigError."""
    field_checks.build_name(name, "name")
    if labels and allowed & {TokenScope.ADMIN, TokenScope.METRICS}:
        raise ConfigError(
            "scope: admin and metrics see everybody's builds, whatever the label",
            hint="leave --label out, or give submit, read and enter alone",
        )
    if expires is not None and expires <= 0:
        raise ConfigError("expires: 0s is over at once", hint="such as 30d, or leave it out")
    if expires is not None and expires > LONGEST_VALIDITY:
        raise ConfigError(
            f"expires: {units.exact(expires)} is more than a hundred years",
            hint="leave it out: it is valid until it is revoked",
        )
    if quota.usd_per_day == math.inf:
        raise ConfigError("usd-per-day: inf is no limit", hint="leave it out")
    now, actor = time.time(), by or process.user()
    secret, token = ledger.tokens.create(
        name,
        allowed,
        by=actor,
        now=now,
        labels=labels,
        quota=quota,
        expires_at=None if expires is None else now + expires,
    )
    ledger.actions.add(actor, "token-create", token.id, now, name)
    return secret, token


def exchange(
    ledger: Ledger,
    actor: str,
    allowed: frozenset[TokenScope],
    *,
    labels: Mapping[str, str],
    quota: TokenQuota,
    issuer: str,
    now: float,
    expires_at: float,
) -> tuple[str, Token]:
    """Make a token for an identity that an issuer has proved; its holder is `actor`."""
    secret, token = ledger.tokens.create(
        "",  # none of a person's: it is forgotten once it is over
        allowed,
        by=issuer,
        now=now,
        labels=labels,
        quota=quota,
        expires_at=expires_at,
        actor=actor,
    )
    ledger.actions.add(actor, "token-exchange", token.id, now, issuer)
    return secret, token


def log_in(
    ledger: Ledger,
    actor: str,
    allowed: frozenset[TokenScope],
    *,
    name: str,
    labels: Mapping[str, str],
    quota: TokenQuota,
    issuer: str,
    attempt: str,
    now: float,
    expires_at: float,
) -> Token:
    """Make the token behind a person's login, which nobody ever sees. `name`: for people;
    `attempt`: of which there is one token. Raises Conflict for a second."""
    _, token = ledger.tokens.create(
        "",
        allowed,
        by=issuer,
        now=now,
        labels=labels,
        quota=quota,
        expires_at=expires_at,
        actor=actor,
        attempt=attempt,
    )
    ledger.tokens.note_person(actor, name, now)
    ledger.actions.add(actor, "login", token.id, now, issuer)
    return token


def revoke(ledger: Ledger, word: str, *, by: str = "") -> tuple[Token, bool]:
    """Revoke a token, by id or name; and whether it was valid before. Raises NotFound."""
    now, actor = time.time(), by or process.user()
    token = ledger.tokens.find(word)
    done = ledger.tokens.revoke(token.id, now)
    if done:
        ledger.actions.add(actor, "token-revoke", token.id, now, token.name)
    return token, done
