"""Proofs that a browser may enter one port of one build: made of its login, worth nothing else, and
over with it. They hold the digest of the login's cookie, which opens nothing by itself, and a code
made with a secret of the login that no VM is told."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmrunner.ledger.tokens import digest

if TYPE_CHECKING:
    from vmrunner.ledger.tokens import Tokens
    from vmrunner.model import Token

COOKIE: Final = "cookie"  # uses of a proof, of which none is worth another
KEY: Final = "key"  # in a path
HANDOVER: Final = "handover"  # in a URL, for a moment
HANDOVER_LASTS: Final = 60.0  # seconds
_CODE: Final = 40  # characters
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True)
class PortLogin:
    """A browser's login, as proofs are made of it."""

    digest: str
    secret: str
    token: Token

    def proof(self, use: str, build: str, port: int, *, until: int = 0) -> str:
        """Return a proof for one use. `until`: epoch seconds, of a handover."""
        return f"{self.digest}.{until}.{self._code(use, build, port, until)}"

    def proves(self, code: str, use: str, build: str, port: int, until: int) -> bool:
        """True if the code is that of a proof of this login."""
        return hmac.compare_digest(code.encode(), self._code(use, build, port, until).encode())

    def _code(self, use: str, build: str, port: int, until: int) -> str:
        text = f"{use}\0{build}\0{port}\0{until}".encode()
        return hmac.new(self.secret.encode(), text, hashlib.sha256).hexdigest()[:_CODE]


def of_cookie(tokens: Tokens, cookie: str, now: float) -> PortLogin | None:
    """The login of a browser's cookie; None: it is over."""
    return _of_digest(tokens, digest(cookie), now) if cookie else None


def of_proof(
    tokens: Tokens, proof: str, use: str, build: str, port: int, now: float
) -> PortLogin | None:
    """The login that a proof was made of, if it is one for this; None: it is not, or is over."""
    name, _, rest = proof.partition(".")
    until, _, code = rest.partition(".")
    if len(proof) > _LONGEST or not until.isdecimal() or not proof.isascii():
        return None
    login = _of_digest(tokens, name, now)
    if login is None or not login.proves(code, use, build, port, int(until)):
        return None
    return login if int(until) == 0 or now < int(until) else None


def renewed(tokens: Tokens, login: PortLogin, now: float) -> PortLogin | None:
    """The same login as it is now; None: it is over."""
    return _of_digest(tokens, login.digest, now)


def _of_digest(tokens: Tokens, name: str, now: float) -> PortLogin | None:
    found = tokens.login_by_digest(name, now)
    if found is None or not found[0].valid(now):
        return None
    return PortLogin(name, found[1], found[0])
