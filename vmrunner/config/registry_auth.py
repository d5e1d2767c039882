"""Credentials for the registry of a container's image: from a secret to what Docker is told. Pure.

No error repeats any of it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from vmrunner.errors import ConfigError

HUB: Final = "docker.io"
LOGIN: Final = "VMRUNNER_REGISTRY_LOGIN"  # the secret that `login` makes
_HELPERS: Final = {"credHelpers", "credsStore"}  # programs that know logins
_HUB_OF_OLD: Final = "index.docker.io"  # in images' names, where Docker takes it for the other
_HUB_NAMES: Final = frozenset({HUB, _HUB_OF_OLD, "registry-1.docker.io"})
_HUB_ADDRESS: Final = "https://index.docker.io/v1/"


def registry_of(image: str) -> str:
    """Return the host, and maybe port, that an image is pulled from."""
    first, slash, _ = image.partition("/")
    if not slash or not (set(".:") & set(first) or first == "localhost"):
        return HUB
    return HUB if first == _HUB_OF_OLD else first


def header(image: str, secret: bytes) -> str:
    """Return the header X-Registry-Auth for a secret: `user:password`, or a Docker configuration
    with `auths`. Raises ConfigError."""
    registry = registry_of(image)
    address = _HUB_ADDRESS if registry == HUB else registry
    payload = {**_credentials(registry, secret), "serveraddress": address}
    return base64.urlsafe_b64encode(json.dumps(payload).encode()).decode()


def docker_config(image: str, secret: bytes) -> str:
    """Return the Docker configuration that has such a secret for the image's registry alone. Raises
    ConfigError."""
    registry = registry_of(image)
    entry = _credentials(registry, secret)
    if "username" in entry:
        pair = f"{entry['username']}:{entry['password']}"
        entry = {**entry, "auth": base64.b64encode(pair.encode()).decode()}
    return json.dumps({"auths": {_HUB_ADDRESS if registry == HUB else registry: entry}})


def hidden(image: str, secret: bytes) -> tuple[bytes, ...]:
    """Parts of it that no log may show, beside the secret as a whole."""
    credentials = _credentials(registry_of(image), secret)
    return tuple(
        credentials[part].encode() for part in ("password", "identitytoken") if part in credentials
    )


def login(image: str, field: str, *configs: bytes) -> dict[str, Any]:
    """Return the options of a build that pulls an image by the login that the first of these
    Docker configurations has for its registry; none where none has one. So a user who names the
    image never chooses who is shown a login. Raises ConfigError, which names `field`."""
    for config in configs:
        try:
            document = json.loads(config)
            # A login that only a helper knows is none.
            auths = document.get("auths", {}) if document.keys() & _HELPERS else document["auths"]
            found = _found(registry_of(image), auths)
        except (ValueError, RecursionError, LookupError, AttributeError):
            raise ConfigError(
                f"{field}: no Docker configuration with auths", hint="such as ~/.docker/config.json"
            ) from None
        if found:
            secret = json.dumps({"auths": {registry_of(image): dict(found)}}).encode()
            return {"registry_secret": LOGIN, "secrets": {LOGIN: secret}}
    return {}


def _credentials(registry: str, secret: bytes) -> dict[str, str]:
    try:
        text = secret.decode().strip()
        config = json.loads(text) if text.startswith("{") else None
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise _unusable() from None
    if config is None:
        return _pair(text)
    if (found := _found(registry, config.get("auths"))) is not None:
        return _entry(found)
    raise ConfigError(
        f"registry_secret: its auths have nothing for {registry}",
        hint=f"docker login {registry}, or user:password",
    )


def _found(registry: str, auths: object) -> Mapping[str, Any] | None:
    """Credentials for a registry in a Docker configuration's `auths`."""
    for name, entry in auths.items() if isinstance(auths, Mapping) else ():
        if _host(str(name)) == registry and isinstance(entry, Mapping):
            return entry
    return None


def _host(name: str) -> str:
    """Return the registry that an entry of a Docker configuration is for."""
    host = name.partition("://")[2] or name
    host = host.partition("/")[0]
    return HUB if host in _HUB_NAMES else host


def _entry(entry: Mapping[str, Any]) -> dict[str, str]:
    if isinstance(token := entry.get("identitytoken"), str) and token:
        return {"identitytoken": token}
    if isinstance(auth := entry.get("auth"), str) and auth:
        try:
            return _pair(base64.b64decode(auth, validate=True).decode())
        except (binascii.Error, UnicodeDecodeError):
            raise _unusable() from None
    return _pair(f"{entry.get('username') or ''}:{entry.get('password') or ''}")


def _pair(text: str) -> dict[str, str]:
    user, _, password = text.partition(":")
    if not user or not password:
        raise _unusable()
    return {"username": user, "password": password}


def _unusable() -> ConfigError:
    return ConfigError(
        "registry_secret: it is neither user:password nor a Docker configuration with auths",
        hint="USER:PASSWORD, or --secret NAME=@~/.docker/config.json",
    )
