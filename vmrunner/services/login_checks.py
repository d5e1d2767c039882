"""Checks of `[[server.login]]`: that people can log in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from vmrunner.errors import ConfigError
from vmrunner.model import Finding, Level
from vmrunner.services.client import issuer_document

if TYPE_CHECKING:
    from vmrunner.config.oidc import LoginIssuer
    from vmrunner.config.settings import ServerSettings

_CHECK = "logins"
#: Claims that everybody whom an issuer sends here has alike.
_OF_ALL: Final = frozenset({"iss", "aud", "azp"})


def findings(server: ServerSettings) -> Iterator[Finding]:
    """Ask each issuer for its document, read each secret, and look for rules that let in all."""
    for issuer in server.login:
        yield from _open_rules(issuer)
        try:
            issuer.secret()
            _check_document(issuer)
        except ConfigError as error:
            yield Finding(
                check=_CHECK, level=Level.ERROR, message=str(error.args[0]), fix=error.hint
            )
        except Exception as error:  # noqa: BLE001 - whatever an issuer answers
            yield Finding(
                check=_CHECK,
                level=Level.WARNING,
                message=f"nobody can log in with {issuer.name}: {error}"[:300],
                fix=f"see whether {issuer.issuer} is its issuer, and is reached from here",
            )
        else:
            place = f"{server.url}/login/{issuer.name}/callback"
            yield Finding(
                check=_CHECK,
                level=Level.OK,
                message=f"{issuer.name} answers; it must send people back to {place}",
            )


def _open_rules(issuer: LoginIssuer) -> Iterator[Finding]:
    for number, rule in enumerate(issuer.rules, 1):
        if _OF_ALL.issuperset(rule.match):
            yield Finding(
                check=_CHECK,
                level=Level.WARNING,
                message=f"rule {number} of {issuer.name} lets in everybody whom it knows: "
                f"its match is of {', '.join(sorted(rule.match))} alone",
                fix="match a claim of people too, such as groups, hd or email",
            )


def _check_document(issuer: LoginIssuer) -> None:
    """Raise ValueError where an issuer's document lets nobody log in."""
    document = issuer_document.fetch(
        issuer.issuer.rstrip("/") + "/.well-known/openid-configuration"
    )
    if document.get("issuer") != issuer.issuer:
        raise ValueError(f"it calls itself {document.get('issuer')!r}")
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        issuer.own_address(document, name)
    methods = document.get("code_challenge_methods_supported", ["S256"])
    if "S256" not in methods:
        raise ValueError(f"it knows PKCE by {methods}, and not by S256")
