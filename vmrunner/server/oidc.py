"""The exchange of a CI system's identity token for one of ours, for an hour at most."""

from __future__ import annotations

import logging
import string
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import jwt

from vmrunner.errors import ConfigError
from vmrunner.lib import units
from vmrunner.model import Token, TokenQuota, TokenScope
from vmrunner.model.principals import OIDC
from vmrunner.server.problems import HttpProblem
from vmrunner.services import tokens
from vmrunner.services.client import issuer_document

if TYPE_CHECKING:
    from vmrunner.config.oidc import OidcIssuer, OidcRule
    from vmrunner.ledger import Ledger

log = logging.getLogger("vmrunner.server")

ALGORITHMS: Final = ("RS256", "ES256")  # nothing that a shared secret or none could make
REFETCH: Final = 60.0  # seconds between two looks for a key that is not known
WITHDRAWN: Final = 3600.0  # … for one that is: its issuer may have withdrawn it
BELIEVED: Final = 86_400.0  # … that keys count whose issuer is not reached any more
CALLERS: Final = 16  # that one issuer may keep waiting at once
LEEWAY: Final = 30.0  # seconds by which clocks may differ
LONGEST_TOKEN: Final = 16 * 1024  # characters of an identity token
_NEEDED: Final = ["exp", "iat", "iss", "aud", "sub"]


class _Issuer:
    """The keys of one issuer. `looked`: when they were asked for last, `had`: when they came."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.callers = threading.BoundedSemaphore(CALLERS)
        self.looked_at = self.fetched_at = float("-inf")
        self.keys: dict[str, jwt.PyJWK] = {}


class IssuerKeys:
    """The public keys of issuers, each fetched from the issuer alone, and from several at once."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._by_issuer: dict[str, _Issuer] = {}

    def find(self, issuer: str, name: str) -> jwt.PyJWK | None:
        """Return one key. All are looked for again after an hour; for an unknown one at most once a
        minute. What came longer than a day ago counts no more. Raises HttpProblem where as many as
        may already wait for this issuer."""
        with self._lock:
            issued = self._by_issuer.setdefault(issuer, _Issuer())
        if not issued.callers.acquire(blocking=False):
            raise HttpProblem(
                503,
                "the keys of its issuer are being fetched",
                fix="try again",
                headers={"Retry-After": "5"},
            )
        try:
            with issued.lock:
                if self._now() - issued.looked_at >= (
                    WITHDRAWN if name in issued.keys else REFETCH
                ):
                    found = self._fetched(issuer)
                    issued.looked_at = self._now()
                    if found is not None:
                        issued.keys, issued.fetched_at = found, issued.looked_at
                if self._now() - issued.fetched_at >= BELIEVED:
                    issued.keys = {}
                return issued.keys.get(name)
        finally:
            issued.callers.release()

    def _fetched(self, issuer: str) -> dict[str, jwt.PyJWK] | None:
        try:
            found = issuer_document.fetch(issuer.rstrip("/") + "/.well-known/openid-configuration")
            listed = issuer_document.fetch(_key_place(issuer, found))["keys"]
            return {str(jwk["kid"]): jwt.PyJWK(jwk) for jwk in listed if _signs(jwk)}
        except Exception as error:  # noqa: BLE001 - whatever an issuer answers, it is no key
            log.warning("the keys of %s cannot be had: %s", issuer, error)
            return None


def _key_place(issuer: str, found: Mapping[str, Any]) -> str:
    """The URL of its keys: at the issuer itself."""
    place = str(found["jwks_uri"])
    if found.get("issuer") != issuer or urlsplit(place)[:2] != urlsplit(issuer)[:2]:
        raise ValueError(f"it names {place!r}, which is not its own")
    return place


def _signs(key: Mapping[str, Any]) -> bool:
    return key.get("kty") in ("RSA", "EC") and key.get("use", "sig") == "sig" and "kid" in key


class OidcExchange:
    """The issuers of the configuration, and their keys."""

    def __init__(self, keys: IssuerKeys) -> None:
        self._keys = keys

    def exchange(
        self, shown: str, issuers: list[OidcIssuer], ledger: Ledger, now: float
    ) -> tuple[str, Token]:
        """Return a token as it is shown, and its row. Raises HttpProblem for an identity that is
        not proved (401), or that no rule is for (403)."""
        if len(shown) > LONGEST_TOKEN:
            raise _unproved("it is too long")
        issuer = self._issuer(shown, issuers)
        claims = self._verified(shown, issuer, now)
        rule = next((rule for rule in issuer.rules if _matches(rule, claims)), None)
        if rule is None:
            raise HttpProblem(403, "no rule of server.oidc is for this identity")
        return tokens.exchange(
            ledger,
            _actor(issuer, claims),
            frozenset(TokenScope(word) for word in rule.scopes),
            labels=_labels(rule, claims),
            quota=TokenQuota(
                builds=rule.builds,
                max_ttl=rule.max_ttl,
                providers=None if rule.providers is None else tuple(rule.providers),
                usd_per_day=rule.usd_per_day,
                network=rule.network,
                docker=rule.docker,
                images=None if rule.images is None else tuple(rule.images),
            ),
            issuer=issuer.issuer,
            now=now,
            expires_at=now + issuer.lifetime,
        )

    def _issuer(self, shown: str, issuers: list[OidcIssuer]) -> OidcIssuer:
        try:
            claims = jwt.decode(shown, options={"verify_signature": False})
        except jwt.PyJWTError as error:
            raise _unproved(str(error)) from None
        matching = [issuer for issuer in issuers if issuer.issuer == claims.get("iss")]
        if not matching:
            raise _unproved("its issuer is not configured")
        return next(
            (candidate for candidate in matching if candidate.audience == claims.get("aud")),
            matching[0],
        )

    def _verified(self, shown: str, issuer: OidcIssuer, now: float) -> Mapping[str, Any]:
        try:
            name = str(jwt.get_unverified_header(shown).get("kid", ""))
            key = self._keys.find(issuer.issuer, name)
            if key is None:
                raise _unproved("its issuer has no such key")
            claims: dict[str, Any] = jwt.decode(
                shown,
                key,
                algorithms=[*ALGORITHMS],
                audience=issuer.audience,
                issuer=issuer.issuer,
                options={
                    "require": _NEEDED, "strict_aud": True, "verify_exp": False,
                    "verify_iat": False, "verify_nbf": False,
                },
            )  # fmt: skip
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise _unproved(str(error)) from None
        _timely(claims, now)
        return claims


def _actor(issuer: OidcIssuer, claims: Mapping[str, Any]) -> str:
    """Return as whom an identity is known: its issuer's URL, which has no `#`, and its whole
    `sub`: two issuers may know the same one, and two names may begin alike."""
    sub = str(claims["sub"])
    if not sub.isprintable():
        raise _unproved("its sub has characters that cannot be printed")
    return f"{OIDC}{issuer.issuer}#{sub}"


def _timely(claims: Mapping[str, Any], now: float) -> None:
    """Raises HttpProblem for what was not issued yet, does not count yet, or is over."""
    times = {name: claims.get(name, 0) for name in ("iat", "nbf", "exp")}
    if not all(isinstance(at, int | float) for at in times.values()):
        raise _unproved("a time in it is no number")
    if now >= times["exp"] + LEEWAY or now < max(times["iat"], times["nbf"]) - LEEWAY:
        raise _unproved("it is over, or does not count yet")


def _matches(rule: OidcRule, claims: Mapping[str, Any]) -> bool:
    """True if all the claims that it names have these very values."""
    return all(_text(claims.get(name)) == value for name, value in rule.match.items())


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None


def _labels(rule: OidcRule, claims: Mapping[str, Any]) -> dict[str, str]:
    """The rule's labels, with claims in them."""
    texts = {name: text for name, value in claims.items() if (text := _text(value)) is not None}
    found = {}
    for name, pattern in rule.labels.items():
        try:
            text = string.Formatter().vformat(pattern, (), texts)
            units.check_label(name, text)
        except (KeyError, ValueError, IndexError, AttributeError, ConfigError) as error:
            raise HttpProblem(
                403, f"label {name} cannot be made of this identity: {error}"
            ) from None
        found[name] = text
    return found


def _unproved(why: str) -> HttpProblem:
    return HttpProblem(401, f"the identity is not proved: {why}"[:300])
