"""Output of a sandbox's command on its way to a caller: without its secrets, from any offset on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vmrunner.errors import Conflict
from vmrunner.lib.masking import MASK, Masker, seam
from vmrunner.model import StreamName

if TYPE_CHECKING:
    from vmrunner.lib.secret_patterns import SecretPatterns
    from vmrunner.session.command_protocol import OutputFrame

OnOutput = Callable[[StreamName, bytes], object]


class MaskedCommandOutput:
    """The output of one command from two offsets on, without its secrets."""

    def __init__(
        self,
        patterns: SecretPatterns,
        on_output: OnOutput,
        clock: Callable[[], float],
        stdout: int = 0,
        stderr: int = 0,
    ) -> None:
        self._on_output = on_output
        self._clock = clock
        self._fed = clock()
        self._streams = {
            StreamName.STDOUT: _MaskedStream(patterns, stdout),
            StreamName.STDERR: _MaskedStream(patterns, stderr),
        }

    @property
    def offsets(self) -> tuple[int, int]:
        """Bytes of stdout and stderr that came, from where the VM is to go on."""
        out, err = (self._streams[name].raw for name in StreamName)
        return out, err

    @property
    def handed_on(self) -> tuple[int, int]:
        """Return up to where all was handed on."""
        out, err = (self._streams[name].handed_on for name in StreamName)
        return out, err

    @property
    def quiet(self) -> float:
        """Seconds since there was output."""
        return self._clock() - self._fed

    def feed(self, frame: OutputFrame) -> None:
        self._fed = self._clock()
        self._tell(frame.stream, self._streams[frame.stream].feed(frame.data))

    def resume(self) -> None:
        """Forget what was not handed on: it comes again."""
        for stream in self._streams.values():
            stream.resume()

    def decide(self) -> None:
        """Hand on all that can become no secret."""
        for name, stream in self._streams.items():
            self._tell(name, stream.decide())

    def finish(self) -> None:
        """Nothing follows. Raises Conflict where an offset was past the end."""
        for name, stream in self._streams.items():
            self._tell(name, stream.finish(name))

    def _tell(self, stream: StreamName, data: bytes) -> None:
        if data:
            self._on_output(stream, data)


class _MaskedStream:
    """One stream. The offset that a caller chose may lie in the middle of a secret: so what stands
    before it is read too, and looked at, as far as a secret may reach."""

    def __init__(self, patterns: SecretPatterns, offset: int) -> None:
        self._patterns = patterns
        self._begin(offset)

    def _begin(self, offset: int) -> None:
        self._before = min(offset, self._patterns.reach)  # bytes that are only looked at
        self._seen = b""  # while it is not known where to begin
        self._masker = Masker(self._patterns)
        self.raw = offset - self._before

    @property
    def handed_on(self) -> int:
        if self._before:
            return self.raw - len(self._seen) + self._before
        return self.raw - self._masker.held

    def resume(self) -> None:
        self._begin(self.handed_on)

    def feed(self, data: bytes) -> bytes:
        self.raw += len(data)
        if not self._before:
            return self._masker.feed(data)
        self._seen += data
        return self._look(whole=False)

    def decide(self) -> bytes:
        return self._masker.decide()

    def finish(self, name: StreamName) -> bytes:
        if len(self._seen) < self._before:
            raise Conflict(
                f"{name}: the command wrote {self.raw} bytes, and byte {self.handed_on} was asked "
                "for",
                hint="read on from `next`",
            )
        return self._look(whole=True) + self._masker.finish()

    def _look(self, *, whole: bool) -> bytes:
        """Mask from the offset on, once it is known that no secret reaches over it; or from its
        end."""
        if not self._before:
            return b""
        begin = seam(self._seen, self._patterns, self._before, whole=whole)
        if begin is None:
            return b""
        rest, mask = self._seen[begin:], MASK if begin > self._before else b""
        self._seen, self._before = b"", 0
        return mask + self._masker.feed(rest)
