"""Beginnings of steps in a followed log: groups that a CI system folds (GitHub Actions, GitLab CI),
elsewhere lines beside it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from vmrunner.cli.output import clean
from vmrunner.model import BuildEvent, BuildRecord, EventKind

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.services.client import RemoteLedger

Mark = Callable[[int, float, str], str]


class CiGroups:
    """The marks that belong before each piece of a build's log. `talks`: where no CI system reads,
    and there are several steps, they are lines for people, and none of the log's."""

    def __init__(self, ledger: Ledger | RemoteLedger, build: BuildRecord) -> None:
        self._ledger = ledger
        self._build = build
        self._seen = 0
        self._waiting: list[BuildEvent] = []
        self._printed: set[tuple[int, int, str]] = set()  # after a take-over they come again
        self._open: int | None = None  # the step whose group is open
        self._marks = _marks()
        self.talks = self._marks is None and len(build.spec.steps) > 1

    def before(self, attempt: float, offset: float) -> list[str]:
        """Marks of all that happened before byte `offset` of an attempt's log; infinities for
        all, and then no group stays open: an attempt that was lost ended none."""
        if self._marks is None and not self.talks:
            return []
        for event in self._ledger.events.list(self._build.id, after=self._seen):
            self._seen = event.seq
            if event.kind in (EventKind.STEP_STARTED, EventKind.STEP_ENDED):
                self._waiting.append(event)
        lines: list[str] = []
        time = self._build.created_at
        while self._waiting and _place(self._waiting[0]) < (attempt, offset):
            event = self._waiting.pop(0)
            step, time = _number(event, "step"), event.time
            named = (_number(event, "attempt", 1), step, event.kind)
            if named not in self._printed:
                self._printed.add(named)
                lines += self._close(time)
                if event.kind == EventKind.STEP_STARTED:
                    lines.append(self._begun(step, time))
                    self._open = step
        return lines + (self._close(time) if math.isinf(offset) else [])

    def _begun(self, step: int, time: float) -> str:
        if self._marks is not None:
            return self._marks[0](step, time, self._title(step))
        return f"step {step + 1} of {len(self._build.spec.steps)}: {self._title(step)}"

    def _close(self, time: float) -> list[str]:
        """The end of the group that is open, if one is."""
        if self._open is None or self._marks is None:
            return []
        step, self._open = self._open, None
        return [self._marks[1](step, time, "")]

    def _title(self, step: int) -> str:
        return " ".join(clean(self._build.spec.steps[step].title).split())[:80]


def _place(event: BuildEvent) -> tuple[int, int]:
    return _number(event, "attempt", 1), _number(event, "offset")


def _number(event: BuildEvent, key: str, unknown: int = 0) -> int:
    value = event.data.get(key)
    return value if isinstance(value, int) else unknown


def _marks() -> tuple[Mark, Mark] | None:
    if os.environ.get("GITHUB_ACTIONS") == "true":
        return (
            lambda _step, _time, title: f"::group::{title.replace('%', '%25')}\n",
            lambda _step, _time, _title: "::endgroup::\n",
        )
    if os.environ.get("GITLAB_CI") == "true":
        return (
            lambda step, at, title: (
                f"\x1b[0Ksection_start:{int(at)}:vmrunner_step_{step}\r\x1b[0K{title}\n"
            ),
            lambda step, at, _title: (
                f"\x1b[0Ksection_end:{int(at)}:vmrunner_step_{step}\r\x1b[0K\n"
            ),
        )
    return None
