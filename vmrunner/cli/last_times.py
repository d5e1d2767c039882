"""Times that slow steps took on this machine, kept in the cache, for who waits for the next."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

FILE: Final = "last-times.json"
LEAST_SECONDS: Final = 5.0  # of what is shorter no duration is shown
_MOST: Final = 200  # steps that are kept
_LONGEST: Final = 30 * 86_400.0  # seconds of one that is believed


class LastTimes:
    """Seconds by the name of a step. A file that is lost, or another's, costs a hint."""

    def __init__(
        self, directory: Path | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`directory`: default: the cache's."""
        self._directory = directory
        self._clock = clock

    def hint(self, step: str) -> str:
        """Return " (2m the last time)", or nothing."""
        from vmrunner.lib import units

        seconds = self.seconds(step)
        return "" if seconds is None else f" ({units.span(seconds)} the last time)"

    def seconds(self, step: str) -> float | None:
        """Seconds that a step took the last time, where that is known."""
        return self._read().get(step)

    def sum(self, prefix: str) -> float | None:
        """Seconds of all steps whose names begin so, where any is known."""
        found = [seconds for step, seconds in self._read().items() if step.startswith(prefix)]
        return sum(found) if found else None

    def note(self, step: str, seconds: float) -> None:
        """Keep how long a step took."""
        if seconds < LEAST_SECONDS:
            return
        kept = {**self._read(), step: round(seconds, 1)}
        with contextlib.suppress(OSError):
            file = self._file()
            beside = file.with_name(f"{file.name}.part")
            beside.write_text(json.dumps(dict(list(kept.items())[-_MOST:])))
            beside.replace(file)

    @contextlib.contextmanager
    def steps(self, prefix: str) -> Iterator[Callable[[str], str]]:
        """Give what is told of each step that begins, and returns its hint. The one before it ends
        then; the last one at the end, unless that is an error."""
        under_way: list[tuple[str, float]] = []

        def end() -> None:
            for step, since in under_way:
                self.note(step, self._clock() - since)
            under_way.clear()

        def begin(step: str) -> str:
            end()
            under_way.append((f"{prefix}{step}", self._clock()))
            return self.hint(f"{prefix}{step}")

        yield begin
        end()

    def _file(self) -> Path:
        from vmrunner.config.paths import cache_path

        return (self._directory or cache_path()) / FILE

    def _read(self) -> dict[str, float]:
        try:
            read = json.loads(self._file().read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(read, dict):
            return {}
        return {
            name: float(took)
            for name, took in read.items()
            if isinstance(took, int | float) and 0 <= took <= _LONGEST
        }
