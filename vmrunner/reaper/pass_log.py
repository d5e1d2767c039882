"""Log lines of passes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vmrunner.engine import lifecycle_log
from vmrunner.reaper.report import Report

log = logging.getLogger("vmrunner.serve")

#: Seconds after which what lasts is said again; without it for so long, it is new.
REPEAT_EVERY: Final = 86_400.0
NEW: Final = 3600.0


@dataclass(slots=True)
class _Hole:
    logged: float
    seen: float


class PassLog:
    """The log of one reaper. A part that cannot be read is told at first and once a day: a region
    that is switched off for good would fill the log."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._holes: dict[str, _Hole] = {}

    def __call__(self, report: Report) -> None:
        """Log the effects of a pass, and what it could not do."""
        log_lines(report, logging.WARNING)
        for alarm in report.alarms:
            log.error("%s", alarm)
        now = self._now()
        self._holes = {k: hole for k, hole in self._holes.items() if now - hole.seen < NEW}
        for part in report.unread:
            what = ": ".join(part.split(": ")[:2])  # the rest may be another each time
            hole = self._holes.get(what)
            if hole is None or now - hole.logged >= REPEAT_EVERY:
                log.warning("not read: %s", part)
                self._holes[what] = hole = _Hole(now, now)
            hole.seen = now


def log_lines(report: Report, level: int) -> None:
    """Log what a pass killed and closed, each with its ids."""
    for line in report.lines:
        log.log(
            level,
            "%s %s %s: %s %s",
            line.what,
            line.kind,
            line.id,
            line.reason,
            line.outcome,
            extra=lifecycle_log.fields(
                build=line.build,
                instance=line.instance,
                provider=line.provider,
                reason=line.reason.value,
            ),
        )
