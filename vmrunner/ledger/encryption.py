"""Sealing: what must not be read from the database, under a secret that is kept elsewhere.

Fernet, the recipe of the `cryptography` package. Several keys, separated by commas, allow a
rotation: the first seals, all unseal.
"""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from vmrunner.errors import ConfigError

_MAKE_ONE = "make one with: openssl rand -base64 32 | tr '+/' '-_'"


def make_key() -> str:
    """A new secret, as text of 44 characters."""
    return Fernet.generate_key().decode()


class Encryption:
    """Seals and unseals under one secret. `source` names where it came from, for messages."""

    def __init__(self, secret: str, *, source: str) -> None:
        self.source = source
        keys = [part.strip() for part in secret.split(",") if part.strip()]
        try:
            fernets = [Fernet(key) for key in keys]
        except ValueError as error:
            raise ConfigError(
                f"{source} holds no usable key: each must be 32 bytes in URL-safe base64",
                hint=_MAKE_ONE,
            ) from error
        if not fernets:
            raise ConfigError(f"{source} is empty", hint=_MAKE_ONE)
        self._fernet = fernets[0] if len(fernets) == 1 else MultiFernet(fernets)

    def seal(self, data: bytes) -> bytes:
        return self._fernet.encrypt(data)

    def unseal(self, token: bytes) -> bytes:
        """Raises ConfigError when it was sealed under another secret, or altered."""
        try:
            return self._fernet.decrypt(token)
        except InvalidToken as error:
            raise ConfigError(
                f"{self.source} is not the secret that this ledger was sealed with",
                hint="restore the ledger's own secret.key, or set VMRUNNER_SECRET_KEY to it",
            ) from error
