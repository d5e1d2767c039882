"""Secrets out of a byte stream.

Masked is what a build may print of a secret by accident: the value, each line of it, and its usual
encodings. A build that wants to leak a secret can always encode it in another way.

The stream may be cut anywhere: what could still become a secret is held back. Everything before
`held` is decided, so a new masker that starts there goes on exactly where this one was.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote_from_bytes, quote_plus

MASK: Final = b"***"
SHORTEST: Final = 4  # bytes; a shorter value would mask half of any log

# Bytes that most logs are full of, the commonest last.
_COMMON: Final = b"QZXJKYVqzGHUWBOjFMLNPDIRTCASEx()=,][9876543210k_-/:wvybgfphdumcl.nrsaiote "
_BASE64_LINE: Final = 76  # columns of coreutils' base64 and of MIME


class Masker:
    """Replaces each stretch that secrets cover by `***`."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        secrets = tuple(secrets)
        self.ignored = sum(1 for secret in secrets if len(secret.strip()) < SHORTEST)
        self._needles = needles(secrets)
        # Where none of those that hold no other is, none is; and where its rarest byte is not.
        self._least = tuple(
            (_rarest(needle), needle)
            for needle in self._needles
            if sum(n in needle for n in self._needles) == 1
        )
        self._text = b""
        self._covered = 0  # so many bytes of `_text` belong to a stretch that began before it
        self._before = 0  # of which so many bytes are gone from `_text` already

    @property
    def held(self) -> int:
        """Raw bytes that were fed and have not left, masked or not."""
        return self._before + len(self._text)

    def feed(self, data: bytes) -> bytes:
        """The part of the masked stream that is decided now."""
        if not self._needles:
            return data
        self._text += data
        return self._leave(self._undecided())

    def finish(self) -> bytes:
        """What was held back: nothing follows."""
        return self._leave(len(self._text))

    def _undecided(self) -> int:
        """Where the first needle could begin whose end is not here yet."""
        text = self._text
        first = len(text)
        for needle in self._needles:
            at = max(len(text) - len(needle) + 1, 0)
            while (at := text.find(needle[:1], at, first)) >= 0:
                if needle.startswith(text[at:]):
                    first = at
                    break
                at += 1
        return first

    def _leave(self, cut: int) -> bytes:
        """Let go of the text before `cut`, and of whole stretches only."""
        out = []
        done = 0
        text = self._text
        for start, end in self._stretches():
            if start >= max(cut, self._covered and 1):
                break
            out.append(text[done:start])
            if end > cut:  # it is open: more of it may come
                keep = max(cut, start)
                self._before += keep - start
                self._covered = end - keep
                self._text = text[keep:]
                return b"".join(out)
            out.append(MASK)
            self._before = 0
            done = end
        out.append(text[done:cut])
        self._covered = self._before = 0
        self._text = text[cut:]
        return b"".join(out)

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """Where secrets lie, in order; those that overlap are one."""
        spans = [(0, self._covered)] if self._covered else []
        text = self._text
        there = any(byte in text and needle in text for byte, needle in self._least)
        for needle in self._needles if there else ():
            at = -1
            while (at := text.find(needle, at + 1)) >= 0:
                spans.append((at, at + len(needle)))
        spans.sort()
        open_start, open_end = -1, -1
        for start, end in spans:
            if start < open_end:
                open_end = max(open_end, end)
                continue
            if open_end >= 0:
                yield open_start, open_end
            open_start, open_end = start, end
        if open_end >= 0:
            yield open_start, open_end


def _rarest(needle: bytes) -> bytes:
    """The byte of it that logs are least likely to hold; one byte is found much faster."""
    rarest = min(needle, key=_COMMON.rfind)  # those that are not in it first
    return bytes((rarest,))


def mask(text: bytes, secrets: Iterable[bytes]) -> bytes:
    """A whole text at once."""
    masker = Masker(secrets)
    return masker.feed(text) + masker.finish()


def needles(secrets: Iterable[bytes]) -> tuple[bytes, ...]:
    """All that is looked for."""
    found = {form for secret in secrets for form in _forms(secret) if len(form) >= SHORTEST}
    return tuple(sorted(found, key=lambda form: (-len(form), form)))


def _forms(secret: bytes) -> Iterator[bytes]:
    """The secret as it is, and as programs print it."""
    for value in {secret, secret.strip()}:
        if len(value) < SHORTEST:
            continue
        yield value
        yield from _base64(value)
        yield from _base64(value + b"\n")
        percent = quote_from_bytes(value, safe="")
        yield percent.encode()
        yield quote_from_bytes(value).encode()
        yield quote_plus(value).encode()
        yield _lower_hex(percent)
        text = value.decode("utf-8", "surrogateescape")
        for ascii_only in (True, False):
            escaped = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
            yield escaped.encode("utf-8", "surrogateescape")
    for line in secret.splitlines():
        yield line.strip()


def _base64(value: bytes) -> Iterator[bytes]:
    """Wherever it lies in what was encoded: the characters that depend on it alone, for each of
    the three alignments, in both alphabets; and as lines of the usual length."""
    for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            encoded = alphabet(b"\0" * shift + value)
            first = (shift * 8 + 5) // 6
            last = (shift + len(value)) * 8 // 6
            yield encoded[first:last]
        whole = alphabet(value)
        if len(whole) > _BASE64_LINE:
            yield from (whole[at : at + _BASE64_LINE] for at in range(0, len(whole), _BASE64_LINE))


def _lower_hex(percent: str) -> bytes:
    parts = percent.split("%")
    return "%".join([parts[0], *(p[:2].lower() + p[2:] for p in parts[1:])]).encode()
