"""Knowledge of a scale set that one process has beside the ledger. All of it may be lost: GitHub
tells the counts again, and refuses what a missing hint would do wrong."""

from __future__ import annotations

import threading
from collections.abc import Set
from dataclasses import dataclass, replace

from vmrunner.integrations.github.messages import JobCounts, JobMessage, ScaleSet
from vmrunner.integrations.github.plan import JobNews


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownJobs:
    """News and hints, all of one time: a runner that has had its job, and a count that still has
    that job in it, would look like a job without a runner. `started` and `completed` are names of
    runners."""

    scale_set: ScaleSet | None = None
    news: JobNews | None = None
    started: frozenset[str] = frozenset()
    completed: frozenset[str] = frozenset()


class ScaleSetState:
    """Written by the listener, read by the scaler. `changed` wakes the latter."""

    def __init__(self) -> None:
        self.jobs = KnownJobs()
        self.changed = threading.Event()
        self._lock = threading.Lock()

    def found(self, scale_set: ScaleSet) -> None:
        """Take in which scale set it is."""
        self._become(scale_set=scale_set)

    def counted(self, counts: JobCounts, now: float) -> None:
        """Take in what is assigned to us now."""
        self._become(news=JobNews(assigned=counts.assigned, told_at=now))
        self.changed.set()

    def heard(self, message: JobMessage, now: float) -> None:
        """Take in a message. The same one may come twice."""
        with self._lock:
            news, counts = self.jobs.news, message.counts
            if counts is not None:
                since = now if news is None or news.unsure_since is None else news.unsure_since
                news = JobNews(assigned=counts.assigned, told_at=now, unsure_since=since)
            self.jobs = replace(
                self.jobs,
                news=news,
                started=self.jobs.started | set(message.started),
                completed=self.jobs.completed | set(message.completed or ()),
            )
        self.changed.set()

    def confirmed(self, now: float) -> None:
        """Nothing has changed until now."""
        if (news := self.jobs.news) is not None:
            self._become(news=replace(news, told_at=now, unsure_since=None))
            self.changed.set()

    def lost(self) -> None:
        """Look for the scale set anew: GitHub has it no more."""
        self._become(scale_set=None, news=None)

    def unheard(self) -> None:
        """Forget the counts: another hears them now, and starts what is missing."""
        self._become(news=None)

    def keep(self, names: Set[str]) -> None:
        """Forget all runners but these."""
        with self._lock:
            started, completed = self.jobs.started & names, self.jobs.completed & names
            self.jobs = replace(self.jobs, started=started, completed=completed)

    def _become(self, **changes: ScaleSet | JobNews | None) -> None:
        with self._lock:
            self.jobs = replace(self.jobs, **changes)  # type: ignore[arg-type]
