"""Steps as groups that a CI system folds: GitHub Actions and GitLab CI."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from vmrunner.cli.output import clean
from vmrunner.model import Build, Event

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger

Mark = Callable[[int, float, str], str]


class Groups:
    """The marks that belong before each piece of a build's log. None where no CI system reads."""

    def __init__(self, ledger: Ledger, build: Build) -> None:
        self._ledger = ledger
        self._build = build
        self._seen = 0
        self._waiting: list[Event] = []
        several = len(build.spec.steps) > 1
        self._marks = _marks() if several else None

    def before(self, offset: float) -> list[str]:
        """Marks of all that happened before the log's byte `offset`; infinity for all."""
        if self._marks is None:
            return []
        for event in self._ledger.events.list(self._build.id, after=self._seen):
            self._seen = event.seq
            if event.kind in ("step_started", "step_ended"):
                self._waiting.append(event)
        lines = []
        while self._waiting and _number(self._waiting[0], "offset") < offset:
            event = self._waiting.pop(0)
            step = _number(event, "step")
            title = " ".join(clean(self._build.spec.steps[step].title).split())[:80]
            begin, end = self._marks
            mark = begin if event.kind == "step_started" else end
            lines.append(mark(step, event.time, title))
        return lines


def _number(event: Event, key: str) -> int:
    value = event.data.get(key)
    return value if isinstance(value, int) else 0


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
