"""APScheduler's trigger for a cron line. Its own counts weekdays from Monday, and wants both days
to fit where cron takes either."""

from __future__ import annotations

from datetime import datetime

from apscheduler.triggers.base import BaseTrigger
from cronsim import CronSim

from vmrunner.core import cron_line


class CronLineTrigger(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Each time that a cron line names."""

    def __init__(self, line: str, field: str) -> None:
        """Raises ConfigError, which names `field`, when the line cannot be read."""
        self._line = cron_line.check(line, field)

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime | None:
        """Return the first time after `now`, in its time zone."""
        return next(CronSim(self._line, now), None)
