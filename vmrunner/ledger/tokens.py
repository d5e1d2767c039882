"""Tokens of the HTTP API, and the browsers that showed one. What is secret lies here as SHA-256."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Collection, Mapping
from typing import Any, Final

from vmrunner.errors import Conflict, NotFound, QuotaUsedUp
from vmrunner.ledger.database import Database, Duplicate
from vmrunner.ledger.labels import forced_names
from vmrunner.ledger.sql import Connection, delete, func, select, update
from vmrunner.ledger.statements import Prepared, arg, inserts, run
from vmrunner.ledger.tables import BUILDS, LOGINS, PEOPLE, TOKENS
from vmrunner.lib import ids
from vmrunner.model import BuildState, Token, TokenQuota, TokenScope
from vmrunner.model.principals import OIDC

PREFIX: Final = "vmr_"
_b, _t, _s, _p = BUILDS.c, TOKENS.c, LOGINS.c, PEOPLE.c
_COLUMNS = (
    _t.id, _t.name, _t.scopes, _t.labels, _t.quota, _t.actor, _t.created_at, _t.created_by,
    _t.expires_at, _t.revoked_at,
)  # fmt: skip
_INSERT = inserts(TOKENS)
_LIST = Prepared(lambda: select(*_COLUMNS).order_by(_t.created_at, _t.id))
_BY_DIGEST = Prepared(lambda: select(*_COLUMNS).where(_t.digest == arg("digest")))
_BY_WORD = Prepared(
    lambda: (
        select(*_COLUMNS).where((_t.id == arg("word")) | (_t.name == arg("word"))).order_by(_t.id)
    )
)
_NAME = Prepared(lambda: select(_t.name).where(_t.actor == arg("actor")).limit(1))
_PERSON = Prepared(lambda: select(_p.name).where(_p.actor == arg("actor")))
_RENAME = Prepared(
    lambda: (
        update(PEOPLE)
        .where(_p.actor == arg("who"))
        .values(name=arg("name"), seen_at=arg("seen_at"))
    )
)
_NOTE_PERSON = inserts(PEOPLE)
_REVOKE = Prepared(
    lambda: (
        update(TOKENS)
        .where(_t.id == arg("id"), _t.revoked_at.is_(None))
        .values(revoked_at=arg("now"))
    )
)
_FORGET = Prepared(
    lambda: delete(TOKENS).where(
        _t.expires_at < arg("before"), _t.id.not_in(select(_s.token)), _t.name == ""
    )
)
_UNENDED = Prepared(
    lambda: select(func.count()).where(
        _b.actor == arg("actor"), _b.state != BuildState.FINISHED.value
    )
)
_LOG_IN = inserts(LOGINS)
_LOGIN = Prepared(
    lambda: (
        select(_s.csrf, _s.expires_at, *_COLUMNS)
        .join_from(LOGINS, TOKENS, _s.token == _t.id)
        .where(_s.digest == arg("digest"))
    )
)
_LOG_OUT = Prepared(lambda: delete(LOGINS).where(_s.digest == arg("digest")))
_LAPSED_LOGINS = Prepared(lambda: delete(LOGINS).where(_s.expires_at < arg("before")))


def digest(secret: str) -> str:
    """The SHA-256 of a secret, which alone is kept."""
    return hashlib.sha256(secret.encode()).hexdigest()


def refuse_more(connection: Connection, actor: str, most: int) -> None:
    """Raise QuotaUsedUp, which undoes the transaction, when it gave the actor more builds than so
    many."""
    if connection.dialect.name != "sqlite":  # two that submit at once see each other
        run(connection, select(_t.id).where(_t.actor == actor).with_for_update())
    if (_UNENDED(connection, actor=actor).scalar() or 0) > most:
        raise QuotaUsedUp(
            f"{most} builds of this token have not ended, its quota",
            hint="try again when one has ended",
        )


class Tokens:
    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        name: str,
        scopes: frozenset[TokenScope],
        *,
        by: str,
        now: float,
        labels: Mapping[str, str] | None = None,
        quota: TokenQuota = TokenQuota(),  # noqa: B008 - frozen
        expires_at: float | None = None,
        actor: str | None = None,
        attempt: str | None = None,
    ) -> tuple[str, Token]:
        """Make a token. Return it as it is shown, this once, and its row. `actor`: default
        `token:<id>`; `attempt`: the login that it is of; nobody can show such a one. Raises
        Conflict where a login has one."""
        secret = PREFIX + secrets.token_urlsafe(32)
        token = Token(
            id=ids.token_id(),
            name=name,
            scopes=scopes,
            labels=dict(labels or {}),
            quota=quota,
            actor="",
            created_at=now,
            created_by=by,
            expires_at=expires_at,
        )
        row = {
            "id": token.id,
            "name": name,
            "digest": digest(secret) if attempt is None else f"login:{digest(attempt)}",
            "scopes": json.dumps(sorted(scopes)),
            "labels": json.dumps(token.labels, sort_keys=True),
            "quota": json.dumps(quota.stored()),
            "actor": actor or f"token:{token.id}",
            "created_at": now,
            "created_by": by,
            "expires_at": expires_at,
            "revoked_at": None,
        }
        try:
            self._database.write(lambda c: _INSERT(c, **row))
        except Duplicate:
            raise Conflict("this login was used before") from None
        return secret, self.find(token.id)

    def names(self, actors: Collection[str]) -> dict[str, str]:
        """Return the names of these actors, as far as they have one: those of tokens, and of people
        who logged in."""
        if not actors:
            return {}

        def name(connection: Connection, actor: str) -> str | None:
            query = _PERSON if actor.startswith(OIDC) else _NAME
            found: str | None = query(connection, actor=actor).scalar()
            return found

        found = self._database.read(lambda c: {actor: name(c, actor) for actor in actors})
        return {actor: name for actor, name in found.items() if name}

    def note_person(self, actor: str, name: str, now: float) -> None:
        """Note the name of who logged in, which may be another than before."""

        def work(connection: Connection) -> None:
            if _RENAME(connection, who=actor, name=name, seen_at=now).rowcount == 0:
                _NOTE_PERSON(connection, actor=actor, name=name, seen_at=now)

        with contextlib.suppress(Duplicate):  # who logs in twice at once has the same name
            self._database.write(work)

    def list(self) -> list[Token]:
        """All tokens, oldest first; revoked and expired ones too."""
        return [_token(row) for row in self._database.read(lambda c: _LIST(c).all())]

    def find(self, word: str) -> Token:
        """Find one by id or name; of a name the one that is not revoked. Raises NotFound, and
        Conflict where several are not."""
        found = [_token(r) for r in self._database.read(lambda c: _BY_WORD(c, word=word).all())]
        found.sort(key=lambda token: (token.id != word, token.revoked_at is not None))
        if not found:
            raise NotFound(f"there is no token {word!r}", hint="vmrunner token ls lists all")
        names = [token.id for token in found if token.revoked_at is None]
        if len(names) > 1 and found[0].id != word:
            raise Conflict(
                f"several tokens have the name {word!r}: {', '.join(names)}", hint="say the id"
            )
        return found[0]

    def of_secret(self, secret: str) -> Token | None:
        """The token with this secret; None: there is none. It may be over."""
        row = self._database.look_up(_BY_DIGEST, digest=digest(secret))
        return None if row is None else _token(row)

    def revoke(self, token: str, now: float) -> bool:
        """Let it be valid no more. False: it was not before."""
        return self._database.write(lambda c: _REVOKE(c, id=token, now=now).rowcount == 1)

    # --- browsers ---

    def log_in(self, token: Token, now: float, until: float) -> str:
        """Note a browser that showed this token. Return its cookie."""
        cookie = secrets.token_urlsafe(32)
        row = {
            "digest": digest(cookie),
            "token": token.id,
            "csrf": secrets.token_urlsafe(32),
            "created_at": now,
            "expires_at": until,
        }
        self._database.write(lambda c: _LOG_IN(c, **row))
        return cookie

    def login(self, cookie: str, now: float) -> tuple[Token, str] | None:
        """Return the token that a browser showed, and its CSRF token; None: it is over."""
        return self.login_by_digest(digest(cookie), now)

    def login_by_digest(self, name: str, now: float) -> tuple[Token, str] | None:
        """Return the same, by the digest of the cookie."""
        row = self._database.look_up(_LOGIN, digest=name)
        if row is None or row[1] <= now:
            return None
        return _token(row[2:]), row[0]

    def log_out(self, cookie: str) -> None:
        self._database.write(lambda c: _LOG_OUT(c, digest=digest(cookie)))

    def forced_labels(self) -> set[str]:
        """Return the names of the labels that tokens force on what they submit."""
        return self._database.read(forced_names)

    def forget(self, before: float) -> None:
        """Forget logins, and tokens of an OIDC exchange, that were over before that time."""
        self._database.write(lambda c: _LAPSED_LOGINS(c, before=before))
        self._database.write(lambda c: _FORGET(c, before=before))


def _token(row: Any) -> Token:
    return Token(
        id=row[0],
        name=row[1],
        scopes=frozenset(TokenScope(word) for word in json.loads(row[2])),
        labels=json.loads(row[3]),
        quota=TokenQuota.of(json.loads(row[4])),
        actor=row[5],
        created_at=row[6],
        created_by=row[7],
        expires_at=row[8],
        revoked_at=row[9],
    )
