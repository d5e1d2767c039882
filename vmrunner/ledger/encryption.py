"""Sealing: what must not be read from the database, under a secret that is kept elsewhere.

Fernet, the recipe of the `cryptography` package. Several keys, separated by commas, allow a
rotation: the first seals, all unseal.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from vmrunner.errors import ConfigError
from vmrunner.lib import local_files

_MAKE_ONE = "make one with: openssl rand -base64 32 | tr '+/' '-_'"


def make_key() -> str:
    """A new secret, as text of 44 characters."""
    return Fernet.generate_key().decode()


class Encryption:
    """Seals and unseals under one secret. `source` names where it came from, for messages. `file`:
    it is kept there, and what another process puts into that holds from then on."""

    def __init__(self, secret: str, *, source: str, file: Path | None = None) -> None:
        self.source = source
        self.file = file
        self._version = _version(file)
        self._keys = self._parsed(secret)

    def seal(self, data: bytes) -> bytes:
        return self._current()[0].encrypt(data)

    def unseal(self, token: bytes) -> bytes:
        """Raises ConfigError when it was sealed under another secret, or altered."""
        try:
            return MultiFernet(self._current()).decrypt(token)
        except InvalidToken as error:
            raise ConfigError(
                f"{self.source} is not the secret that this ledger was sealed with",
                hint="restore the ledger's own secret.key, or set VMRUNNER_SECRET_KEY to it",
            ) from error

    def resealed(self, token: bytes) -> bytes | None:
        """Return the same under the first key; None when it is that already. Raises ConfigError as
        `unseal` does."""
        first = self._current()[0]
        try:
            first.decrypt(token)
        except InvalidToken:
            return first.encrypt(self.unseal(token))
        return None

    def _current(self) -> list[Fernet]:
        version = _version(self.file)
        if self.file is not None and version != self._version:
            # A file that is gone or broken does not stop a process that has read it.
            with suppress(ConfigError, OSError):
                self._keys = self._parsed(local_files.read(self.file) or "")
            self._version = version
        return self._keys

    def _parsed(self, secret: str) -> list[Fernet]:
        try:
            keys = [Fernet(part.strip()) for part in secret.split(",") if part.strip()]
        except ValueError as error:
            raise ConfigError(
                f"{self.source} holds no usable key: each must be 32 bytes in URL-safe base64",
                hint=_MAKE_ONE,
            ) from error
        if not keys:
            raise ConfigError(f"{self.source} is empty", hint=_MAKE_ONE)
        return keys


def _version(file: Path | None) -> tuple[int, int] | None:
    """The version of a file: it differs once the file was replaced. None: there is no file."""
    with suppress(OSError):
        if file is not None:
            found = file.stat()
            return found.st_ino, found.st_mtime_ns
    return None
