"""People who log in at their own issuer: OpenID Connect's authorization code flow, with PKCE. What
an attempt is, its browser keeps in a cookie."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_plus, urlencode

from vmrunner.errors import ConfigError, Conflict
from vmrunner.model import Token, TokenScope
from vmrunner.server import oidc
from vmrunner.server.problems import HttpProblem
from vmrunner.services import tokens
from vmrunner.services.client import issuer_document

if TYPE_CHECKING:
    from vmrunner.config.oidc import LoginIssuer
    from vmrunner.ledger import Ledger
    from vmrunner.server.oidc import IssuerKeys

log = logging.getLogger("vmrunner.server")

NOT_BEGUN: Final = "This login was not begun in this browser. Begin here."
LASTS: Final = 600.0  # seconds from the first step of a login to its last
LEEWAY: Final = 60.0  # seconds by which clocks may differ
_LONGEST_NAME: Final = 120  # characters of a person's


class LoginRefused(Exception):
    """A login that came to nothing, in words for who tried."""

    def __init__(self, why: str, status: int = 403) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """A login that a browser began. `issuer`: its name; `target`: the page after it."""

    issuer: str
    state: str
    nonce: str
    verifier: str
    target: str
    began_at: float

    @classmethod
    def new(cls, issuer: str, target: str, now: float) -> LoginAttempt:
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        return cls(issuer, state, nonce, verifier, target, now)

    def cookie(self) -> str:
        """The attempt as a cookie's value."""
        return base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode()

    @classmethod
    def of_cookie(cls, value: str) -> LoginAttempt | None:
        """The attempt that `cookie` wrote; None for anything else."""
        try:
            found = cls(**json.loads(base64.urlsafe_b64decode(value)))
        except (ValueError, TypeError, RecursionError):
            return None
        values = asdict(found)
        is_whole = isinstance(values.pop("began_at"), float) and all(
            isinstance(value, str) and value.isprintable() for value in values.values()
        )
        return found if is_whole else None


class OidcLogins:
    """Logins at the issuers of the configuration, on one server, which people reach at `url`."""

    def __init__(self, keys: IssuerKeys) -> None:
        self._keys = keys

    def begin(self, issuer: LoginIssuer, attempt: LoginAttempt, url: str) -> str:
        """Return the address at which the issuer asks who it is. Raises LoginRefused."""
        challenge = hashlib.sha256(attempt.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": issuer.client_id,
            "redirect_uri": comes_back_at(url, issuer.name),
            "scope": " ".join(issuer.ask_for),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": base64.urlsafe_b64encode(challenge).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        place, _ = self._address(issuer, "authorization_endpoint")
        return f"{place}{'&' if '?' in place else '?'}{urlencode(query)}"

    def finish(
        self,
        issuer: LoginIssuer,
        attempt: LoginAttempt,
        answer: Mapping[str, str],
        ledger: Ledger,
        url: str,
        now: float,
    ) -> Token:
        """Make the token of who came back from the issuer with this answer. Raises LoginRefused."""
        _check_answer(issuer, attempt, answer, now)
        shown = self._identity(issuer, attempt, answer.get("code", ""), url)
        try:
            claims = _believed(oidc.verified(
                self._keys, shown, issuer.issuer, issuer.client_id,
                hosts=issuer.hosts, is_only_audience=False,
            ))  # fmt: skip
            oidc.refuse_untimely(claims, now, LEEWAY)
            actor = oidc.actor_of(issuer.issuer, claims)
            _check_party(issuer, attempt, claims)
            rule = next(
                (rule for rule in issuer.rules if oidc.matches(rule, claims, lists=True)), None
            )
            if rule is None:
                raise LoginRefused(
                    f"{issuer.name} knows you as {name_of(claims)}, "
                    "and whoever runs this server lets no such person in."
                )
            labels = oidc.labels_of(rule, claims)
        except HttpProblem as error:
            log.warning("a login at %s is refused: %s", issuer.name, error.detail)
            raise LoginRefused(
                f"What {issuer.name} said of you cannot be believed: {error.detail}.", error.status
            ) from None
        try:
            return tokens.log_in(
                ledger,
                actor,
                frozenset(TokenScope(word) for word in rule.scopes),
                name=name_of(claims),
                labels=labels,
                quota=oidc.quota_of(rule),
                issuer=issuer.issuer,
                attempt=attempt.state,
                now=now,
                expires_at=now + issuer.lifetime,
            )
        except Conflict:
            raise LoginRefused("This login was used before. Begin again.") from None

    def _address(self, issuer: LoginIssuer, name: str) -> tuple[str, Mapping[str, Any]]:
        """Return an address of the issuer's, and the document that names it."""
        try:
            document = self._keys.document(issuer.issuer, issuer.hosts)
            if document is not None:
                return issuer.own_address(document, name), document
        except HttpProblem:
            pass  # as many wait for it as may
        except ValueError as error:
            log.warning("no login at %s: %s", issuer.name, error)
        raise LoginRefused(f"{issuer.name} cannot be reached now. Try again in a minute.", 503)

    def _identity(self, issuer: LoginIssuer, attempt: LoginAttempt, code: str, url: str) -> str:
        """Return the identity token that the issuer gives for a code."""
        place, document = self._address(issuer, "token_endpoint")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": comes_back_at(url, issuer.name),
            "client_id": issuer.client_id,
            "code_verifier": attempt.verifier,
        }
        try:
            secret = issuer.secret()
            if secret and _takes_secret_in_form(document):
                form["client_secret"] = secret
                return _identity_token(issuer_document.post(place, form))
            user = _client(issuer, secret) if secret else None
            return _identity_token(issuer_document.post(place, form, user))
        except ConfigError as error:
            log.warning("no login at %s: %s", issuer.name, error)
            raise LoginRefused("This server cannot log you in: its log says why.", 503) from None
        except Exception as error:  # noqa: BLE001 - whatever an issuer answers, it is no identity
            log.warning("a login at %s is refused: %s", issuer.name, error)
            raise LoginRefused(
                f"{issuer.name} does not confirm this login. Begin again.", 502
            ) from None


def _identity_token(found: Mapping[str, Any]) -> str:
    shown = found.get("id_token")
    if not isinstance(shown, str) or len(shown) > oidc.LONGEST_TOKEN:
        raise ValueError(f"it answers {str(found.get('error', 'no identity token'))[:80]!r}")
    return shown


def comes_back_at(url: str, name: str) -> str:
    """The address to which an issuer sends people back; each has its own, so that none can pass for
    another."""
    return f"{url}/login/{name}/callback"


def _takes_secret_in_form(document: Mapping[str, Any]) -> bool:
    """True where an issuer says that it takes no secret but in the form (`client_secret_post`)."""
    methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    return "client_secret_post" in methods and "client_secret_basic" not in methods


def _client(issuer: LoginIssuer, secret: str) -> tuple[str, str]:
    """Name and password of this server at the issuer, as RFC 6749, 2.3.1 writes them."""
    return quote_plus(issuer.client_id), quote_plus(secret)


def _check_answer(
    issuer: LoginIssuer, attempt: LoginAttempt, answer: Mapping[str, str], now: float
) -> None:
    if not 0 <= now - attempt.began_at < LASTS:
        raise LoginRefused("This login took longer than ten minutes. Begin again.")
    is_ours = hmac.compare_digest(attempt.state.encode(), answer.get("state", "").encode())
    if attempt.issuer != issuer.name or not is_ours:
        raise LoginRefused(NOT_BEGUN)
    if answer.get("iss", issuer.issuer) != issuer.issuer:
        raise LoginRefused("Another issuer answers than the one that was asked. Begin again.")
    if "error" in answer:
        error = answer["error"]
        if error == "access_denied":
            raise LoginRefused(f"You were not let in, by {issuer.name} or by yourself.")
        shown = error[:80] if error.isprintable() else "something unprintable"
        raise LoginRefused(f"{issuer.name} refuses the login: {shown}.")


def _check_party(issuer: LoginIssuer, attempt: LoginAttempt, claims: Mapping[str, Any]) -> None:
    """Raises HttpProblem for a token that was made for another client, or for another login."""
    parties = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    party = claims.get("azp", None if len(parties) > 1 else issuer.client_id)
    if party != issuer.client_id:
        raise oidc.unproved("it is for another client")
    nonce = str(claims.get("nonce"))
    if not hmac.compare_digest(nonce.encode(), attempt.nonce.encode()):
        raise oidc.unproved("it is of another login")


def _believed(claims: Mapping[str, Any]) -> Mapping[str, Any]:
    """The claims but an address that nobody verified: it may be another's, and so would be what a
    rule, a label or a name has of it."""
    is_verified = claims.get("email_verified") is True
    return {name: value for name, value in claims.items() if is_verified or name != "email"}


def name_of(claims: Mapping[str, Any]) -> str:
    """Return a person's name for others: the address, or what the issuer calls them."""
    for claim in ("email", "preferred_username", "name", "sub"):
        name = claims.get(claim)
        if isinstance(name, str) and name.strip() and name.isprintable():
            return name.strip()[:_LONGEST_NAME]
    return "somebody without a name"
