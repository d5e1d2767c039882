"""Checks of `[[server.login]]`: that people can log in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vmrunner.errors import ConfigError
from vmrunner.model import Finding, Level
from vmrunner.services.client import issuer_document

if TYPE_CHECKING:
    from vmrunner.config.oidc import LoginIssuer
    from vmrunner.config.settings import ServerSettings

_CHECK = "logins"


def findings(server: ServerSettings) -> Iterator[Finding]:
    """Ask each issuer for its document, and read each secret."""
    for issuer in server.login:
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
