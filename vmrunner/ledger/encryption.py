"""Sealing: what must not be read from the database, under a secret that is kept elsewhere.

Fernet, the recipe of the `cryptography` package, which is loaded when something is sealed or
unsealed. Several keys, separated by commas, allow a rotation: the first seals, all unseal.
"""

from __future__ import annotations

import base64
import hmac
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vmrunner.errors import ConfigError
from vmrunner.lib import local_files

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

_KEY = 32  # bytes; the first half of them signs
_SIGNATURE = 32  # bytes at the end of a token
_MAKE_ONE = "make one with: openssl rand -base64 32 | tr '+/' '-_'"


def make_key() -> str:
    """A new secret, as text of 44 characters."""
    return base64.urlsafe_b64encode(os.urandom(_KEY)).decode()


class Encryption:
    """Seals and unseals under one secret. `source` names where it came from, for messages. `file`:
    it is kept there, and what another process puts into that holds from then on."""

    def __init__(self, secret: str, *, source: str, file: Path | None = None) -> None:
        self.source = source
        self.file = file
        self._version = _version(file)
        self._keys = self._parsed(secret)

    def seal(self, data: bytes) -> bytes:
        return _fernet(self._current()[0]).encrypt(data)

    def sealed(self, token: bytes) -> bool:
        """True of a token that was sealed under this secret, by its signature."""
        with suppress(ValueError):
            raw = base64.urlsafe_b64decode(token)
            body, signature = raw[:-_SIGNATURE], raw[-_SIGNATURE:]
            return any(
                hmac.compare_digest(hmac.digest(key[: _KEY // 2], body, "sha256"), signature)
                for key in self._current()
            )
        return False

    def unseal(self, token: bytes) -> bytes:
        """Raises ConfigError when it was sealed under another secret, or altered."""
        from cryptography.fernet import InvalidToken, MultiFernet

        try:
            return MultiFernet(map(_fernet, self._current())).decrypt(token)
        except InvalidToken as error:
            raise ConfigError(
                f"{self.source} is not the secret that this ledger was sealed with",
                hint="restore the ledger's own secret.key, or set VMRUNNER_SECRET_KEY to it",
            ) from error

    def resealed(self, token: bytes) -> bytes | None:
        """Return the same under the first key; None when it is that already. Raises ConfigError as
        `unseal` does."""
        from cryptography.fernet import InvalidToken

        first = _fernet(self._current()[0])
        try:
            first.decrypt(token)
        except InvalidToken:
            return first.encrypt(self.unseal(token))
        return None

    def _current(self) -> list[bytes]:
        version = _version(self.file)
        if self.file is not None and version != self._version:
            # A file that is gone or broken does not stop a process that has read it.
            with suppress(ConfigError, OSError):
                self._keys = self._parsed(local_files.read(self.file) or "")
            self._version = version
        return self._keys

    def _parsed(self, secret: str) -> list[bytes]:
        keys = [_key(part.strip()) for part in secret.split(",") if part.strip()]
        if not all(keys):
            raise ConfigError(
                f"{self.source} holds no usable key: each must be 32 bytes in URL-safe base64",
                hint=_MAKE_ONE,
            )
        if not keys:
            raise ConfigError(f"{self.source} is empty", hint=_MAKE_ONE)
        return keys


def _key(text: str) -> bytes:
    """The bytes of a key; none: it is unusable."""
    try:
        key = base64.urlsafe_b64decode(text)
    except ValueError:
        return b""
    return key if len(key) == _KEY else b""


def _fernet(key: bytes) -> Fernet:
    from cryptography.fernet import Fernet

    return Fernet(base64.urlsafe_b64encode(key))


def _version(file: Path | None) -> tuple[int, int] | None:
    """The version of a file: it differs once the file was replaced. None: there is no file."""
    with suppress(OSError):
        if file is not None:
            found = file.stat()
            return found.st_ino, found.st_mtime_ns
    return None
