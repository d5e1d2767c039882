"""Number of runners that a scale set needs. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from vmrunner.lib.backoff import backoff
from vmrunner.model import BuildRecord, BuildState, Result

FIRST_PAUSE: Final = 10.0  # seconds after a runner that failed, until the next is started
LONGEST_PAUSE: Final = 600.0
SETTLE: Final = 1.0  # … after a message, until its counts are acted upon
LONGEST_SETTLE: Final = 10.0  # … after the first of many, each of which follows at once
STALE: Final = 300.0  # … after which counts that GitHub has not told again are of the past
_FAILED: Final = (Result.FAILURE, Result.ERROR)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunnersSeen:
    """The builds of a scale set, as the ledger has them. `unread`: that cannot be read, and may
    live."""

    live: tuple[BuildRecord, ...]
    ended: tuple[BuildRecord, ...]  # the newest first
    unread: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class JobNews:
    """Count of the jobs that are assigned to us, waiting or running, and when GitHub said so.
    `unsure_since`: the first message after which it was not told that no other follows."""

    assigned: int
    told_at: float
    unsure_since: float | None = None

    @property
    def sure(self) -> bool:
        return self.unsure_since is None

    def settled(self, now: float) -> bool:
        """False while an older message may have told it, which newer ones follow: after an outage
        they come one after another, each with the counts of its own time. Those of a busy scale set
        never stop: after a while it is true all the same. False again when it was not told for
        long: its jobs may be over, and each VM for one is for nothing. So too when the clock was
        set back since: how old they are is not known."""
        age, since = now - self.told_at, self.unsure_since
        return 0 <= age < STALE and (
            since is None or age >= SETTLE or now - since >= LONGEST_SETTLE
        )


def starts(
    seen: RunnersSeen,
    news: JobNews,
    *,
    usable: int,
    most: int,
    jobless: Collection[str],
    now: float,
) -> int:
    """The number to start now. `usable`: of the live ones, may take a job or have one;
    `jobless`: ids of builds that ended without one."""
    if now < resume_at(ended=seen.ended, jobless=jobless):
        return 0
    # A runner that ended well since then took its job with it, though GitHub has not said so yet.
    done = sum(
        row.result is Result.SUCCESS
        and row.id not in jobless
        and (row.finished_at or 0) > news.told_at
        for row in seen.ended
    )
    place = most - len(seen.live) - seen.unread
    return max(0, min(news.assigned - done - usable, place))


def resume_at(ended: Iterable[BuildRecord], jobless: Collection[str]) -> float:
    """The time at which the next may start, after failures in a row: whatever makes each new VM
    useless must not cost one a minute."""
    failures, last = 0, 0.0
    for row in ended:
        if row.result not in _FAILED and row.id not in jobless:
            break
        failures, last = failures + 1, max(last, row.finished_at or 0.0)
    return last + backoff(FIRST_PAUSE, failures - 1, LONGEST_PAUSE) if failures else 0.0


def surplus(
    live: Iterable[BuildRecord], news: JobNews, *, usable: Collection[str], busy: Collection[str]
) -> list[BuildRecord]:
    """Return the runners that no job wants: the oldest of those that are up and not known to have
    one. GitHub has the last word on that."""
    idle = [
        row
        for row in sorted(live, key=lambda row: row.id)
        if row.id in usable and row.id not in busy and row.state is BuildState.RUNNING
    ]
    return idle[: max(0, len(usable) - news.assigned)]
