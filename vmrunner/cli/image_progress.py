"""Progress of an image that is being made: what is under way, and how long all of it will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

from vmrunner.cli import output
from vmrunner.cli.last_times import LastTimes

if TYPE_CHECKING:
    from vmrunner.images import Progress

#: Seconds that a stage takes on two quiet cores, until this machine has a time of its own.
USUAL: Final = {"root": 75.0, "disk": 8.0, "image": 6.0}
_CONTAINER: Final = 65.0  # of a container image, whichever it is
_BELIEVED: Final = 0.15  # of a stage, from where on its pace tells more than its last time


class RemainingTime:
    """Estimate of the seconds until a plan is done. `plan`: stages by name, of which those of a
    group run side by side. `usual`: seconds that each took the last time."""

    def __init__(
        self,
        plan: tuple[tuple[str, ...], ...],
        usual: Callable[[str], float],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan, self._clock = plan, clock
        self._usual = {stage: usual(stage) for group in plan for stage in group}
        self._began: dict[str, float] = {}
        self._fraction: dict[str, float] = {}

    def note(self, progress: Progress) -> None:
        """Take in an event of a stage."""
        self._began.setdefault(progress.stage, self._clock() - progress.seconds)
        self._fraction[progress.stage] = progress.fraction or 0.0

    @property
    def seconds(self) -> float:
        """Seconds from now, as far as can be said."""
        return sum(max(self._of(stage) for stage in group) for group in self._plan if group)

    def _of(self, stage: str) -> float:
        usual, began = self._usual[stage], self._began.get(stage)
        if began is None:
            return usual
        fraction, elapsed = self._fraction[stage], self._clock() - began
        if fraction >= 1.0:
            return 0.0
        if fraction >= _BELIEVED and elapsed > usual * fraction:  # slower than the last time
            return max(elapsed / fraction - elapsed, 0.0)
        return max(usual - elapsed, usual * (1.0 - fraction) * 0.1)


class ImageProgress:
    """Shows an image build: bars on a terminal, a line a stage elsewhere. Nothing is shown before
    there is something to tell; then first of all `why` it is made."""

    def __init__(self, why: str = "", *, later: Mapping[str, float] = MappingProxyType({})) -> None:
        """`later`: seconds of what comes after the image, by name."""
        self._why = why
        self._later = later
        self._live = sys.stderr.isatty() and output.coloured(sys.stderr)
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._printed: set[tuple[str, bool]] = set()
        self._times = LastTimes()
        self._remaining: RemainingTime | None = None
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        if self._why:
            output.say(f"{self._why}: it is made now")
            self._why = ""
        if progress.plan:
            self._plan(progress.plan)
            return
        if self._remaining is not None and progress.stage != "waiting":
            self._remaining.note(progress)
        if self._live:
            self._bar(progress)
        else:
            self._line(progress)
        if progress.fraction == 1.0 and progress.seconds >= 1.0:  # else it was there already
            self._times.note(f"image: {progress.stage}", progress.seconds)

    def _usual(self, stage: str) -> float:
        """Seconds of a stage: the last time's, or those of a quiet machine."""
        if stage in self._later:
            return self._later[stage]
        last = self._times.seconds(f"image: {stage}")
        return USUAL.get(stage, _CONTAINER) if last is None else last

    def _plan(self, plan: tuple[tuple[str, ...], ...]) -> None:
        plan = (*plan, *((stage,) for stage in self._later))
        self._began = time.monotonic()
        self._remaining = RemainingTime(plan, self._usual)
        if not self._live:
            order = ", then ".join(" and ".join(group) for group in plan if group)
            output.say(f"image: {order}: {self._left()}")

    def _left(self) -> str:
        from vmrunner.lib import units

        seconds = 0.0 if self._remaining is None else self._remaining.seconds
        return f"about {units.span(5 * max(1, round(seconds / 5)))} left"

    def _line(self, progress: Progress) -> None:
        from vmrunner.lib import units

        over, stage = progress.fraction == 1.0, progress.stage
        if (stage, over) in self._printed:
            return
        self._printed.add((stage, over))
        if over:
            unfinished = self._remaining is not None and self._remaining.seconds > 0
            text = f"{stage} took {units.span(progress.seconds)}"
            text += f", {self._left()}" if unfinished else ""
            output.say(f"image: {text}")
        elif self._remaining is None or stage == "waiting":  # else the plan has told of it
            output.say(f"image: {stage} …{self._times.hint(f'image: {stage}')}")

    def _bar(self, progress: Progress) -> None:
        if self._bars is None:
            self._bars = _bars(self._left)
            self._bars.start()
            if self._remaining is not None:
                self._tasks["all"] = self._bars.add_task("all", total=1.0, message=None)
        task = self._tasks.get(progress.stage)
        hint = self._times.hint(f"image: {progress.stage}").strip()
        if task is None:
            task = self._bars.add_task(progress.stage, total=None, message="")
            self._tasks[progress.stage] = task
        self._bars.update(
            task,
            total=None if progress.fraction is None else 1.0,
            completed=progress.fraction or 0.0,
            message=output.clean(progress.message)[:60] or hint,
        )
        if progress.fraction == 1.0:
            self._bars.stop_task(task)
        if self._remaining is not None:
            elapsed, remaining = time.monotonic() - self._began, self._remaining.seconds
            self._bars.update(self._tasks["all"], completed=elapsed / (elapsed + remaining or 1.0))


def _bars(remaining: Callable[[], str]) -> Any:
    """Bars, one a stage. `remaining` gives the time left of the whole, each time they are drawn."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class Message(ProgressColumn):
        """A stage's message, or the time until all of it is done."""

        def render(self, task: Any) -> Text:
            message = task.fields["message"]
            return Text(remaining() if message is None else message)

    return Progress(
        TextColumn("{task.description:<14}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        Message(),
        console=Console(stderr=True),
    )
