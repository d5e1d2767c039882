"""Steps of a build, as its events tell them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vmrunner.lib.units import exact
from vmrunner.model import BuildEvent, BuildRecord, EventKind, Reason, Result


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRun:
    """One step in one attempt; `index` None: the pull of the container's image before them.
    `offset`: the raw bytes of the attempt's log that lie before it."""

    index: int | None
    attempt: int
    started: float
    offset: int = 0
    ended: float | None = None
    exit_code: int | None = None


def runs(events: Iterable[BuildEvent]) -> list[StepRun]:
    """Return the runs of steps in the order of their beginnings. Who takes a build over is told by
    the VM what the one before was told too: once is enough, in each attempt."""
    found: dict[tuple[int, int | None], StepRun] = {}
    attempt = 1
    for event in events:
        step = event.data.get("step")
        index = step if isinstance(step, int) else None
        key = attempt, index
        if event.kind == EventKind.RETRY:
            attempt += 1
        elif event.kind in (EventKind.PULLING, EventKind.STEP_STARTED):
            offset = event.data.get("offset")
            run = StepRun(
                index=index,
                attempt=attempt,
                started=event.time,
                offset=offset if isinstance(offset, int) else 0,
            )
            found.setdefault(key, run)
        elif event.kind in (EventKind.CONTAINER, EventKind.STEP_ENDED):
            begun, code = found.get(key), event.data.get("exit_code")
            if begun is not None and begun.ended is None:
                found[key] = replace(
                    begun, ended=event.time, exit_code=code if isinstance(code, int) else None
                )
    return list(found.values())


def title(build: BuildRecord, index: int) -> str:
    """Return the name that a step is shown by."""
    steps = build.spec.steps
    return steps[index].title if 0 <= index < len(steps) else str(index)


def culprit(build: BuildRecord, events: Iterable[BuildEvent]) -> StepRun | None:
    """The step in which a build ended otherwise than well: the one that failed, or ran when the
    time was over."""
    if build.result in (None, Result.SUCCESS):
        return None
    steps = [run for run in runs(events) if run.index is not None]
    last = steps[-1] if steps else None
    if last is None or (last.exit_code == 0 and last.ended is not None):
        return None
    return last


def short_title(build: BuildRecord, index: int, most: int = 80) -> str:
    """The same on one line, of so many characters at most."""
    line = " ".join(title(build, index).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def describe(build: BuildRecord, run: StepRun, *, short: bool = False) -> str:
    """The end of a step in words: its exit code, or the limit that it met. `short`: with the
    beginning of a long name."""
    assert run.index is not None
    name = f"step {(short_title if short else title)(build, run.index)!r}"
    if build.reason is Reason.STEP_TIMEOUT:
        limit = build.spec.steps[run.index].timeout
        return (
            f"{name} ran past its {exact(limit) if isinstance(limit, float | int) else 'timeout'}"
        )
    if build.reason is Reason.BUILD_TIMEOUT:
        return f"{name} ran when the build's {exact(build.spec.timeout)} were over"
    if build.reason is Reason.DEADLINE:
        return f"{name} ran when its VM's time was over"
    if build.result is Result.CANCELLED:
        return f"{name} ran when the build was cancelled"
    if run.exit_code is not None:
        return f"{name} ended with exit code {run.exit_code}"
    return f"{name} did not come to its end"


def requester(events: Iterable[BuildEvent], kind: str) -> str:
    """The actor who last asked to cancel, retry or remove a build; "" where none was noted."""
    reasons = [
        str(event.data["by"]) for event in events if event.kind == kind and event.data.get("by")
    ]
    return reasons[-1] if reasons else ""
