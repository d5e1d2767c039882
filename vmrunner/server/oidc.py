"""Identity tokens and the keys of their issuers; the exchange of a CI system's for one of ours, for
an hour at most."""

from __future__ import annotations

import logging
import string
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import jwt

from vmrunner.config.oidc import own_address
from vmrunner.errors import ConfigError
from vmrunner.lib import units
from vmrunner.model import Token, TokenQuota, TokenScope
from vmrunner.model.principals import OIDC
from vmrunner.server.problems import HttpProblem
from vmrunner.services import tokens
from vmrunner.services.client import issuer_document

if TYPE_CHECKING:
    from vmrunner.config.oidc import IdentityRule, OidcIssuer
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
    """The document and keys of one issuer. `looked_at`: when they were asked for last;
    `fetched_at`: when they came."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.callers = threading.BoundedSemaphore(CALLERS)
        self.looked_at = self.fetched_at = float("-inf")
        self.keys: dict[str, jwt.PyJWK] = {}
        self.document: Mapping[str, Any] | None = None


class IssuerKeys:
    """The documents and public keys of issuers, each fetched from the issuer alone, and from
    several at once. `hosts`: those beside its own at which an issuer may be."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._by_issuer: dict[str, _Issuer] = {}

    def find(self, issuer: str, name: str, hosts: Sequence[str] = ()) -> jwt.PyJWK | None:
        """Return one key. All are looked for again after an hour; for an unknown one at most once a
        minute. What came longer than a day ago counts no more. Raises HttpProblem where as many as
        may already wait for this issuer."""
        with self._fresh(issuer, hosts, lambda it: name in it.keys) as issued:
            return issued.keys.get(name)

    def document(self, issuer: str, hosts: Sequence[str] = ()) -> Mapping[str, Any] | None:
        """The issuer's document of OpenID Connect Discovery; None: none came. Raises as `find`."""
        with self._fresh(issuer, hosts, lambda it: it.document is not None) as issued:
            return issued.document

    @contextmanager
    def _fresh(
        self, issuer: str, hosts: Sequence[str], has_it: Callable[[_Issuer], bool]
    ) -> Iterator[_Issuer]:
        with self._lock:
            issued = self._by_issuer.setdefault(" ".join((issuer, *hosts)), _Issuer())
        if not issued.callers.acquire(blocking=False):
            raise HttpProblem(
                503,
                "the keys of its issuer are being fetched",
                fix="try again",
                headers={"Retry-After": "5"},
            )
        try:
            with issued.lock:
                if self._now() - issued.looked_at >= (WITHDRAWN if has_it(issued) else REFETCH):
                    found = _fetched(issuer, hosts)
                    issued.looked_at = self._now()
                    if found is not None:
                        issued.document, issued.keys = found
                        issued.fetched_at = issued.looked_at
                if self._now() - issued.fetched_at >= BELIEVED:
                    issued.keys, issued.document = {}, None
                yield issued
        finally:
            issued.callers.release()


def _fetched(
    issuer: str, hosts: Sequence[str]
) -> tuple[Mapping[str, Any], dict[str, jwt.PyJWK]] | None:
    try:
        found = issuer_document.fetch(issuer.rstrip("/") + "/.well-known/openid-configuration")
        _refuse_other(issuer, found)
        listed = issuer_document.fetch(own_address(issuer, hosts, found, "jwks_uri"))["keys"]
        return found, {str(jwk["kid"]): jwt.PyJWK(jwk) for jwk in listed if _signs(jwk)}
    except Exception as error:  # noqa: BLE001 - whatever an issuer answers, it is no key
        log.warning("the keys of %s cannot be had: %s", issuer, error)
        return None


def _refuse_other(issuer: str, found: Mapping[str, Any]) -> None:
    if found.get("issuer") != issuer:
        raise ValueError(f"it calls itself {found.get('issuer')!r}")


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
            raise unproved("it is too long")
        issuer = self._issuer(shown, issuers)
        claims = verified(self._keys, shown, issuer.issuer, issuer.audience)
        refuse_untimely(claims, now, LEEWAY)
        rule = next((rule for rule in issuer.rules if matches(rule, claims)), None)
        if rule is None:
            raise HttpProblem(403, "no rule of server.oidc is for this identity")
        return tokens.exchange(
            ledger,
            actor_of(issuer.issuer, claims),
            frozenset(TokenScope(word) for word in rule.scopes),
            labels=labels_of(rule, claims),
            quota=quota_of(rule),
            issuer=issuer.issuer,
            now=now,
            expires_at=now + issuer.lifetime,
        )

    def _issuer(self, shown: str, issuers: list[OidcIssuer]) -> OidcIssuer:
        try:
            claims = jwt.decode(shown, options={"verify_signature": False})
        except jwt.PyJWTError as error:
            raise unproved(str(error)) from None
        matching = [issuer for issuer in issuers if issuer.issuer == claims.get("iss")]
        if not matching:
            raise unproved("its issuer is not configured")
        return next(
            (candidate for candidate in matching if candidate.audience == claims.get("aud")),
            matching[0],
        )


def verified(
    keys: IssuerKeys,
    shown: str,
    issuer: str,
    audience: str,
    *,
    hosts: Sequence[str] = (),
    is_only_audience: bool = True,
) -> Mapping[str, Any]:
    """Return the claims of a token that this issuer signed for this audience, alone or among
    others. Its times are not looked at. Raises HttpProblem."""
    try:
        name = str(jwt.get_unverified_header(shown).get("kid", ""))
        key = keys.find(issuer, name, hosts)
        if key is None:
            raise unproved("its issuer has no such key")
        claims: dict[str, Any] = jwt.decode(
            shown,
            key,
            algorithms=[*ALGORITHMS],
            audience=audience,
            issuer=issuer,
            options={
                "require": _NEEDED, "strict_aud": is_only_audience, "verify_exp": False,
                "verify_iat": False, "verify_nbf": False,
            },
        )  # fmt: skip
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise unproved(str(error)) from None
    return claims


def actor_of(issuer: str, claims: Mapping[str, Any]) -> str:
    """Return as whom an identity is known: its issuer's URL, which has no `#`, and its whole
    `sub`: two issuers may know the same one, and two names may begin alike."""
    sub = str(claims["sub"])
    if not sub.isprintable():
        raise unproved("its sub has characters that cannot be printed")
    return f"{OIDC}{issuer}#{sub}"


def refuse_untimely(claims: Mapping[str, Any], now: float, leeway: float) -> None:
    """Raises HttpProblem for what was not issued yet, does not count yet, or is over, on clocks
    that differ by so many seconds at most."""
    times = {name: claims.get(name, 0) for name in ("iat", "nbf", "exp")}
    if not all(isinstance(at, int | float) for at in times.values()):
        raise unproved("a time in it is no number")
    if now >= times["exp"] + leeway or now < max(times["iat"], times["nbf"]) - leeway:
        raise unproved("it is over, or does not count yet")


def matches(rule: IdentityRule, claims: Mapping[str, Any], *, lists: bool = False) -> bool:
    """True if all the claims that it names have these very values; with `lists` also where a claim
    lists the value among others."""

    def has(value: Any, wanted: str) -> bool:
        if lists and isinstance(value, list):
            return any(_text(each) == wanted for each in value)
        return _text(value) == wanted

    return all(has(claims.get(name), value) for name, value in rule.match.items())


def quota_of(rule: IdentityRule) -> TokenQuota:
    """Limits that a rule sets to builds."""
    return TokenQuota(
        builds=rule.builds,
        max_ttl=rule.max_ttl,
        providers=None if rule.providers is None else tuple(rule.providers),
        usd_per_day=rule.usd_per_day,
        network=rule.network,
        docker=rule.docker,
        images=None if rule.images is None else tuple(rule.images),
    )


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None


def labels_of(rule: IdentityRule, claims: Mapping[str, Any]) -> dict[str, str]:
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


def unproved(why: str) -> HttpProblem:
    """Return the problem of an identity that is not proved."""
    return HttpProblem(401, f"the identity is not proved: {why}"[:300])
