"""Secrets out of a byte stream.

Masked is what a build may print of a secret by accident: the value, each line of it, and its usual
encodings, base64 and hex also where a program breaks their lines. A build that wants to leak a
secret can always encode it in another way.

The stream may be cut anywhere: what could still become a secret is held back. Everything before
`held` is decided, so a new masker that starts there goes on exactly where this one was. Whatever
the stream is, each needle costs time in proportion to its length: a build knows its secrets.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from vmrunner.lib.secret_patterns import UNBROKEN, SecretPattern, SecretPatterns

MASK: Final = b"***"

_LETTER: Final = rb"[A-Za-z0-9+/_-]"
# Where a line of base64 or hex ends and the next goes on.
_WRAP: Final = re.compile(rb"\n(?=%b)(?:(?<=%b\n)|(?<=%b\r\n))" % ((_LETTER,) * 3))

_WAIT: Final = 4096  # bytes held back, above which more must have come before they are looked at
_HEAD: Final = 16  # bytes of a needle by which the places are found where it may begin
_TRIES: Final = 16  # such places that are looked at whole, before one counts unseen


class Masker:
    """Replaces each stretch that secrets cover by `***`."""

    def __init__(self, secrets: Iterable[bytes] | SecretPatterns) -> None:
        """Needles can be shared: they take a while to make."""
        self._needles = secrets if isinstance(secrets, SecretPatterns) else SecretPatterns(secrets)
        self._new: list[bytes] = []  # fed, and not looked at yet
        self._size = 0  # of that
        self._text = b""
        self._covered = 0  # so many bytes of `_text` belong to a stretch that began before it
        self._before = 0  # of which so many bytes are gone from `_text` already

    @property
    def ignored(self) -> int:
        """Secrets that are too short to be masked."""
        return self._needles.ignored

    @property
    def held(self) -> int:
        """Raw bytes that were fed and have not left, masked or not."""
        return self._before + len(self._text) + self._size

    @property
    def waits(self) -> bool:
        """True if bytes were fed that only `decide` looks at."""
        return bool(self._new)

    def feed(self, data: bytes) -> bytes:
        """The part of the masked stream that is decided now. Little by little is not looked at
        anew while much is held back."""
        if not self._needles:
            return data
        self._new.append(data)
        self._size += len(data)
        if len(self._text) > _WAIT and self._size < len(self._text) // 4:
            return b""
        return self.decide()

    def decide(self) -> bytes:
        """The decided part of all that was fed, masked."""
        if not self._new:
            return b""
        self._text = b"".join([self._text, *self._new])
        self._new, self._size = [], 0
        with self._needles.turn():
            matches = _Sight(self._text, self._needles)
            return self._leave(matches, matches.undecided())

    def finish(self) -> bytes:
        """The text that was held back, masked: nothing follows."""
        decided = self.decide()
        with self._needles.turn():
            return decided + self._leave(_Sight(self._text, self._needles), len(self._text))

    def _leave(self, matches: _Sight, cut: int) -> bytes:
        """Let go of the text before `cut`, and of whole stretches only."""
        out = []
        done = 0
        text = self._text
        for start, end in matches.stretches(self._covered):
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


class _Sight:
    """Matches of the needles in a text: as it is, and with its lines joined where an encoding may
    go on from one to the next."""

    def __init__(self, text: bytes, needles: SecretPatterns) -> None:
        self._text = text
        self._needles = needles
        self._joined, self._breaks, self._gone = _join(text) if needles.encoded else (text, [], [0])

    def stretches(self, covered: int) -> Iterator[tuple[int, int]]:
        """Yield where secrets lie, in order. Those that overlap are one, and `covered` bytes at the
        start belong to one."""
        spans = [(0, covered)] if covered else []
        spans += self._spans(self._text, self._needles.plain, None)
        for start, end in self._spans(self._joined, self._needles.encoded, self._unbroken):
            spans.append((self._place(start), self._place(end - 1) + 1))
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

    def undecided(self) -> int:
        """Offset at which the first needle could begin whose end has not come yet."""
        first = len(self._text)
        for needle in self._needles.all_plain:
            first = min(first, _opens(self._text, needle.text, lambda _: True))
        if self._needles.encoded:
            joined = self._joined.removesuffix(b"\n").removesuffix(b"\r")
            broken = len(joined) < len(self._joined)

            def may_begin(at: int) -> bool:
                length = min(len(joined) - at, UNBROKEN)
                if length < UNBROKEN and broken:
                    return False
                return self._place(at + length - 1) == self._place(at) + length - 1

            for needle in self._needles.all_encoded:
                at = _opens(joined, needle.text, may_begin)
                if at < len(joined):
                    first = min(first, self._place(at))
        return first

    def _spans(
        self,
        text: bytes,
        needles: Mapping[bytes, tuple[SecretPattern, ...]],
        fits: Callable[[int], bool] | None,
    ) -> Iterator[tuple[int, int]]:
        """Yield each stretch that one needle covers. Where its rarest byte is not, it is not."""
        for byte, some in needles.items():
            if byte in text:
                for needle in some:
                    yield from _runs(text, needle, fits)

    def _place(self, at: int) -> int:
        """Return the place in the text of a byte of the joined lines."""
        return at + self._gone[bisect_right(self._breaks, at)]

    def _unbroken(self, at: int) -> bool:
        return self._place(at + UNBROKEN - 1) == self._place(at) + UNBROKEN - 1


def _join(text: bytes) -> tuple[bytes, list[int], list[int]]:
    """The text with its lines joined; which of its bytes came after a break; and how many bytes
    were gone before the first of those, before the second, …"""
    pieces, breaks, gone = [], [], [0]
    done = size = 0
    for found in _WRAP.finditer(text):
        piece = text[done : found.start()].removesuffix(b"\r")
        pieces.append(piece)
        size += len(piece)
        done = found.end()
        breaks.append(size)
        gone.append(done - size)
    if not pieces:
        return text, [], [0]
    return b"".join([*pieces, text[done:]]), breaks, gone


def _runs(
    text: bytes, needle: SecretPattern, fits: Callable[[int], bool] | None
) -> Iterator[tuple[int, int]]:
    """Yield the stretches that a needle covers. One that repeats in itself is compared only where
    it goes on."""
    size = len(needle.text)
    at = text.find(needle.text)
    while at >= 0:
        if fits is not None and not fits(at):
            at = text.find(needle.text, at + 1)
            continue
        start, period = at, needle.period
        more = needle.text[size - period :]
        # Where it does not overlap itself, the next is a stretch of its own.
        goes_on = period < size and text.startswith(more, at + size)
        while goes_on and (fits is None or fits(at + period)):
            at += period
            goes_on = text.startswith(more, at + size)
        yield start, at + size
        # No other can begin between: it would repeat at a smaller distance.
        step = period if goes_on else max(period, size - period + 1)
        at = text.find(needle.text, at + step)


def _opens(text: bytes, needle: bytes, may_begin: Callable[[int], bool]) -> int:
    """Return the first place where a needle may begin that the text ends in the middle of; the
    text's end if there is none. Too early does no harm: after some places that were looked at in
    vain the next counts as it is."""
    end = len(text)
    at = max(end - len(needle) + 1, 0)
    near = max(end - _HEAD + 1, at)  # from here on less is left than by which places are found
    head, tries = needle[:_HEAD], 0
    while (at := text.find(head, at)) >= 0:
        if may_begin(at) and (tries >= _TRIES or needle.startswith(text[at:])):
            return at
        tries += 1
        at += 1
    at = near
    while (at := text.find(needle[:1], at)) >= 0:
        if needle.startswith(text[at:]) and may_begin(at):
            return at
        at += 1
    return end


def seam(text: bytes, needles: SecretPatterns, at: int, *, whole: bool) -> int | None:
    """Return from where on a text may be masked without what stands before `at`: from there, or
    from the end of the stretch that it lies in. None: that cannot be told before more of it has
    come, unless this is the `whole`."""
    matches = _Sight(text, needles)
    around = (end for start, end in matches.stretches(0) if start < at < end)
    end = next(around, at)
    return end if whole or (len(text) >= at and matches.undecided() >= end) else None
