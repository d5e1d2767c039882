"""Patterns that secrets are looked for by: as they are, and as programs print them."""

from __future__ import annotations

import base64
import contextlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Final
from urllib.parse import quote_from_bytes, quote_plus

from vmrunner.lib import turns

SHORTEST: Final = 4  # bytes; a shorter value would mask half of any log
UNBROKEN: Final = 4  # bytes of an encoded form before it may go on in another line

# Bytes that most logs are full of, the commonest last.
_COMMON: Final = b"QZXJKYVqzGHUWBOjFMLNPDIRTCASEx()=,][9876543210k_-/:wvybgfphdumcl.nrsaiote "
_LINES: Final = (64, 76)  # columns of base64: PEM's and openssl's; MIME's and coreutils'
_SHORTEST_ENCODED: Final = 8  # bytes of a form that may go on in another line
_BROKEN: Final = 3  # times its length that a form in many short lines takes at most
_MANY: Final = 1000  # forms of all secrets
_MOST_LINES: Final = 4096  # bytes of a secret whose single lines of base64 are looked for


class SecretPattern:
    """One form of a secret."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    @cached_property
    def period(self) -> int:
        """The shortest distance at which it repeats in itself; its length if it does not."""
        text, size = self.text, len(self.text)
        head, at = text[:16], 1
        while (at := text.find(head, at)) >= 0:
            if text.startswith(text[at:]):
                return at
            at += 1
        tail = range(max(size - len(head) + 1, 1), size)
        return next((at for at in tail if text.startswith(text[at:])), size)


class SecretPatterns:
    """All forms of some secrets, by their rarest byte: one byte is found much faster. `encoded`
    ones may be broken into lines."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        secrets = tuple(secrets)
        self.ignored = sum(1 for secret in secrets if len(secret.strip()) < SHORTEST)
        with turns.costly():
            plain, encoded = forms(secrets)
            self.all_plain = tuple(map(SecretPattern, sorted(plain)))
            self.all_encoded = tuple(map(SecretPattern, sorted(encoded)))
            self.plain = _by_rarest(self.all_plain)
            self.encoded = _by_rarest(self.all_encoded)

    def __bool__(self) -> bool:
        return bool(self.plain or self.encoded)

    def turn(self) -> AbstractContextManager[object]:
        """A lock to hold while a text is searched for them: a turn where they are so
        many that this takes long."""
        few = len(self.all_plain) + len(self.all_encoded) < _MANY
        return contextlib.nullcontext() if few else turns.costly()

    @cached_property
    def reach(self) -> int:
        """The most bytes that one of them may cover."""
        plain = max((len(pattern.text) for pattern in self.all_plain), default=0)
        encoded = max((len(pattern.text) for pattern in self.all_encoded), default=0)
        return max(plain, _BROKEN * encoded)


def _by_rarest(needles: Iterable[SecretPattern]) -> Mapping[bytes, tuple[SecretPattern, ...]]:
    groups: defaultdict[bytes, list[SecretPattern]] = defaultdict(list)
    for needle in needles:
        rarest = min(set(needle.text), key=_COMMON.rfind)  # those that are not in it first
        groups[bytes((rarest,))].append(needle)
    return {byte: tuple(some) for byte, some in groups.items()}


def forms(secrets: Iterable[bytes]) -> tuple[set[bytes], set[bytes]]:
    """Return the forms that are looked for as they are, and those that may be broken into lines."""
    plain: set[bytes] = set()
    encoded: set[bytes] = set()
    for secret in secrets:
        for value in {secret, secret.strip()}:
            if len(value) >= SHORTEST:
                plain.update(_plain(value))
                encoded.update(_encoded(value))
        plain.update(line.strip() for line in secret.splitlines())
    short = {form for form in encoded if len(form) < _SHORTEST_ENCODED}
    # A break among its first bytes parts it: then what follows is looked for.
    parts = (form[cut:] for form in encoded - short for cut in range(UNBROKEN))
    return (
        {form for form in plain | short if len(form) >= SHORTEST},
        {form for form in parts if len(form) >= _SHORTEST_ENCODED},
    )


def _plain(value: bytes) -> Iterator[bytes]:
    yield value
    percent = quote_from_bytes(value, safe="")
    yield percent.encode()
    yield quote_from_bytes(value).encode()
    yield quote_plus(value).encode()
    yield _lower_hex(percent)
    text = value.decode("utf-8", "surrogateescape")
    for ascii_only in (True, False):
        escaped = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield escaped.encode("utf-8", "surrogateescape")
    if len(value) <= _MOST_LINES:
        # Lines of it, in case that something stands between them.
        whole = base64.b64encode(value)
        for width in _LINES:
            lines = (whole[at : at + width] for at in range(0, len(whole), width))
            yield from (line for line in lines if len(line) >= _SHORTEST_ENCODED)


def _encoded(value: bytes) -> Iterator[bytes]:
    """Hex; and base64 wherever it lies in what was encoded: the characters that depend on it
    alone, for each of the three alignments, in both alphabets."""
    yield value.hex().encode()
    yield value.hex().upper().encode()
    for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
        for whole in (value, value + b"\n"):
            for shift in range(3):
                code = alphabet(b"\0" * shift + whole)
                first = (shift * 8 + 5) // 6
                last = (shift + len(whole)) * 8 // 6
                yield code[first:last]


def _lower_hex(percent: str) -> bytes:
    parts = percent.split("%")
    return "%".join([parts[0], *(p[:2].lower() + p[2:] for p in parts[1:])]).encode()
