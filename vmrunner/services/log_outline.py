"""The outline of a build's log: where its steps begin and end in it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from vmrunner.model import BuildEvent, ChunkPlace
from vmrunner.services import build_history
from vmrunner.services.build_history import StepRun


@dataclass(frozen=True, kw_only=True, slots=True)
class LogSection:
    """A stretch of the log, from line `first` to `last`; it has none where `last` is less. `run`:
    the step whose output it is; None: what came before any."""

    run: StepRun | None
    first: int
    last: int


def sections(
    events: Iterable[BuildEvent], places: Sequence[ChunkPlace], lines: int
) -> list[LogSection]:
    """Return the sections in order: all of a log that has these chunks and so many lines."""
    runs: list[StepRun | None] = [None]
    firsts = [1]
    order = [(place.attempt, place.offset) for place in places]
    for run in build_history.runs(events):
        at = bisect_right(order, (run.attempt, run.offset))
        runs.append(run)
        firsts.append(places[at].line + 1 if at < len(places) else lines + 1)
    firsts = list(accumulate(firsts, max))  # offsets are the VM's word
    ends = [first - 1 for first in firsts[1:]] + [lines]
    found = [
        LogSection(run=run, first=first, last=last)
        for run, first, last in zip(runs, firsts, ends, strict=True)
    ]
    return found if found[0].last else found[1:]
