"""Keys and signatures, without the library that seals."""

from __future__ import annotations

import base64

import pytest
from cryptography.fernet import Fernet

from vmrunner.errors import ConfigError
from vmrunner.ledger.encryption import Encryption, make_key

KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()


def test_a_token_is_known_by_its_signature() -> None:
    ours, former, other = make_key(), make_key(), make_key()
    seal = Encryption(f"{ours},{former}", source="here")
    for key in (ours, former):
        token = Fernet(key).encrypt(b"vmrunner")
        assert seal.sealed(token)
        raw = bytearray(base64.urlsafe_b64decode(token))
        for at in (0, 9, 30, len(raw) - 1):
            altered = bytes(byte ^ 1 if n == at else byte for n, byte in enumerate(raw))
            assert not seal.sealed(base64.urlsafe_b64encode(altered))
    for token in (Fernet(other).encrypt(b"vmrunner"), b"", b"x", b"\xff" * 99, b"A" * 100):
        assert not seal.sealed(token)
    assert seal.sealed(seal.seal(b""))


@pytest.mark.parametrize("key", ["x", "", "A" * 44, KEY[:-2], f"{KEY},x"])
def test_a_key_is_usable_where_fernet_takes_it(key: str) -> None:
    try:
        for part in key.split(","):
            Fernet(part)
    except ValueError:
        with pytest.raises(ConfigError, match="here"):
            Encryption(key, source="here")
    else:
        Encryption(key, source="here")
