"""Jobs at the times that cron lines name, which are times of the wall clock; the only APScheduler.

Its own thread calls what is due. It waits for the next time once and for all, so it must be told of
a clock that was set meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from apscheduler.executors.debug import DebugExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from cronsim import CronSim

from vmrunner.core import cron_line

SET_BACK: Final = 1.0  # seconds by which a clock must go back to count as set


class CronLineTrigger(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Each time that a cron line names. APScheduler's own counts weekdays from Monday, and wants
    both days to fit where cron takes either."""

    def __init__(self, line: str, field: str) -> None:
        """Raises ConfigError, which names `field`, when the line cannot be read."""
        self._line = cron_line.check(line, field)

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime | None:
        """The first time after `now`, in its time zone."""
        return next(CronSim(self._line, now), None)


class CronJobs:
    """Jobs by cron lines. What they call must not take long: it runs in the scheduler's thread,
    which needs no other."""

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._jobs: dict[str, tuple[CronLineTrigger, Callable[[], object]]] = {}
        self._ahead = clock() - monotonic()
        self._scheduler: Any = BackgroundScheduler(
            jobstores={"default": MemoryJobStore()},
            executors={"default": DebugExecutor()},
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
        )

    def set(self, name: str, line: str, field: str, work: Callable[[], object]) -> None:
        """Call `work` at each time of `line`, which comes from the setting `field`; instead of
        what had that name. Raises ConfigError when the line cannot be read."""
        self._jobs[name] = CronLineTrigger(line, field), work
        self._add(name)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        self._scheduler.shutdown(wait=False)

    def look(self) -> None:
        """Look at the wall clock. Where it was set forward, what it passed over is due; where it
        was set back, the next times are told anew, or nothing came until it has caught up."""
        before, self._ahead = self._ahead, self._clock() - self._monotonic()
        if self._ahead < before - SET_BACK:
            for name in self._jobs:
                self._add(name)
        self._scheduler.wakeup()

    def _add(self, name: str) -> None:
        trigger, work = self._jobs[name]
        self._scheduler.add_job(work, trigger, id=name, replace_existing=True)
