"""The exchange of a CI system's identity token for one of ours, for an hour at most."""

from __future__ import annotations

import json
import logging
import string
import threading
import urllib.request
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

if TYPE_CHECKING:
    from vmrunner.config.oidc import OidcIssuer, OidcRule
    from vmrunner.ledger import Ledger

log = logging.getLogger("vmrunner.server")

ALGORITHMS: Final = ("RS256", "ES256")  # nothing that a shared secret or none could make
REFETCH: Final = 60.0  # seconds between two looks for a key that is not known
WITHDRAWN: Final = 3600.0  # … for one that is: its issuer may have withdrawn it
FETCH: Final = 10.0  # seconds for one
DOCUMENT: Final = 1 << 20  # bytes of an issuer's answer
LEEWAY: Final = 30.0  # seconds by which clocks may differ
LONGEST_TOKEN: Final = 16 * 1024  # characters of an identity token
_NEEDED: Final = ["exp", "iat", "iss", "aud", "sub"]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses to be led elsewhere: what an issuer says, it says itself."""

    def redirect_request(self, *_: Any) -> None:
        return None


def fetch(url: str) -> Any:
    """Return the JSON document at a URL, without following anybody elsewhere."""
    opener = urllib.request.build_opener(_NoRedirects)
    with opener.open(url, timeout=FETCH) as answer:
        return json.loads(answer.read(DOCUMENT))


class IssuerKeys:
    """The public keys of issuers, each fetched from the issuer alone."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, dict[str, jwt.PyJWK]]] = {}

    def find(self, issuer: str, name: str) -> jwt.PyJWK | None:
        """Return one key. All are looked for again after an hour; for an unknown one at most once a
        minute."""
        with self._lock:
            at, keys = self._known.get(issuer, (float("-inf"), {}))
            if self._now() - at >= (WITHDRAWN if name in keys else REFETCH):
                found = self._fetched(issuer)
                keys = keys if found is None else found
                self._known[issuer] = self._now(), keys
            return keys.get(name)

    def _fetched(self, issuer: str) -> dict[str, jwt.PyJWK] | None:
        try:
            found = fetch(issuer.rstrip("/") + "/.well-known/openid-configuration")
            listed = fetch(_key_place(issuer, found))["keys"]
            return {str(one["kid"]): jwt.PyJWK(one) for one in listed if _signs(one)}
        except Exception as error:  # noqa: BLE001 - whatever an issuer answers, it is no key
            log.warning("the keys of %s cannot be had: %s", issuer, error)
            return None


def _key_place(issuer: str, found: Mapping[str, Any]) -> str:
    """Return where its keys are: at the issuer itself."""
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
            f"{OIDC}{str(claims['sub'])[:200]}",
            frozenset(TokenScope(word) for word in rule.scopes),
            labels=_labels(rule, claims),
            quota=TokenQuota(
                builds=rule.builds,
                max_ttl=rule.max_ttl,
                providers=None if rule.providers is None else tuple(rule.providers),
                usd_per_day=rule.usd_per_day,
            ),
            issuer=issuer.issuer,
            now=now,
            expires_at=now + issuer.lifetime,
        )

    def _issuer(self, shown: str, issuers: list[OidcIssuer]) -> OidcIssuer:
        try:
            said = jwt.decode(shown, options={"verify_signature": False})
        except jwt.PyJWTError as error:
            raise _unproved(str(error)) from None
        known = [issuer for issuer in issuers if issuer.issuer == said.get("iss")]
        if not known:
            raise _unproved("nobody here knows its issuer")
        return next((one for one in known if one.audience == said.get("aud")), known[0])

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
    known = {name: text for name, value in claims.items() if (text := _text(value)) is not None}
    found = {}
    for name, pattern in rule.labels.items():
        try:
            text = string.Formatter().vformat(pattern, (), known)
            units.check_label(name, text)
        except (KeyError, ValueError, IndexError, AttributeError, ConfigError) as error:
            raise HttpProblem(
                403, f"label {name} cannot be made of this identity: {error}"
            ) from None
        found[name] = text
    return found


def _unproved(why: str) -> HttpProblem:
    return HttpProblem(401, f"the identity is not proved: {why}"[:300])
