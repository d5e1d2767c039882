"""Runners for a scale set, as many as jobs are assigned to it.

Each look begins with the ledger: what runs is what it says, of any process. A crash between two
looks loses nothing, and two processes at once start one VM for a number. Nothing here ends a VM: a
runner leaves when GitHub gives it no job any more, or when its job is over, and the deadline ends
those that do neither.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Set
from dataclasses import replace
from typing import Final

from vmrunner.config.forges import ScaleSetSettings
from vmrunner.errors import LedgerError
from vmrunner.integrations.github import plan
from vmrunner.integrations.github.errors import GithubError
from vmrunner.integrations.github.messages import ScaleSet
from vmrunner.integrations.github.plan import JobNews, RunnersSeen
from vmrunner.integrations.github.runners import RUNNER, SET_ID, RunnerBuilds, number_of
from vmrunner.integrations.github.service import ActionsService
from vmrunner.integrations.github.state import KnownJobs, ScaleSetState
from vmrunner.model import BuildRecord, Result

log = logging.getLogger("vmrunner.github")

_GONE: Final = 404

#: Exit codes of GitHub's runner.
_CODES: Final = {
    0: "it is done",
    1: "it was refused or ended: its registration is over, or it may not run",
    2: "it gave up for now",
    3: "it wanted to update itself",
    4: "it wanted to update itself",
    5: "another runner of its name is up",
    6: "its configuration was renewed",
    7: "GitHub takes its version no more: use a newer image",
    126: "the image's runner cannot be executed",
    127: "the image has no runner where the command looks for it",
}


class RunnerScaler:
    """Starts runners of one scale set. `look` is called again and again."""

    def __init__(
        self,
        settings: ScaleSetSettings,
        state: ScaleSetState,
        service: ActionsService,
        builds: RunnerBuilds,
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._state = state
        self._service = service
        self._builds = builds
        self._now = now
        self._lived: dict[str, str] = {}  # runners' names by build, as seen last
        self._ours: set[str] = set()  # builds that this process started
        self._jobless: set[str] = set()  # builds that ended without a job
        self._busy: set[str] = set()  # names of runners that GitHub would not dismiss
        self._leaving: set[str] = set()  # … that get no job any more
        self._number = 0  # the highest that was taken
        self._idle_since: float | None = None
        self._looked = now()  # when we looked last
        self._ends: dict[str, float] = {}  # when builds ended, by our clock

    def look(self) -> None:
        """Compare, and start what is missing. Raises GithubError, or what refuses a build."""
        jobs = self._state.jobs
        scale_set, news = jobs.scale_set, jobs.news
        began = self._now()
        seen = self._dated(self._builds.seen())
        self._looked = began
        self._tell_ended(seen, jobs)
        if seen.live:
            self._builds.keep_served(seen)
        if scale_set is None or news is None or not news.settled(self._now()):
            return
        usable = self._usable(seen, scale_set, jobs.completed | self._leaving)
        count = plan.starts(
            seen,
            news,
            usable=len(usable),
            most=self._settings.max_runners,
            jobless=self._jobless,
            now=self._now(),
        )
        for _ in range(count):
            self._start(scale_set, seen)
        self._dismiss_idle(seen, news, usable, jobs.started | self._busy)

    def _dated(self, seen: RunnersSeen) -> RunnersSeen:
        """Hold the ends of builds within what we saw ourselves. Another's clock wrote them, and
        what is compared with ours must not wait for a day that is only tomorrow's there."""
        now, ends = self._now(), {}
        for row in seen.ended:
            end = row.finished_at or 0.0
            if row.id in self._lived:
                end = max(end, self._looked)
            elif end > now:  # that clock is ahead, and we did not see it live
                end = self._looked
            ends[row.id] = min(self._ends.get(row.id, end), now)  # ours may have been set back
        self._ends = ends
        dated = tuple(replace(row, finished_at=ends[row.id]) for row in seen.ended)
        return replace(seen, ended=dated)

    def _usable(self, seen: RunnersSeen, scale_set: ScaleSet, over: Set[str]) -> set[str]:
        """Return the builds whose runner has a job, or may get one."""
        return {
            row.id
            for row in seen.live
            if row.cancel is None
            and row.spec.labels.get(SET_ID) == str(scale_set.id)
            and row.spec.labels.get(RUNNER, "") not in {"", *over}
        }

    def _start(self, scale_set: ScaleSet, seen: RunnersSeen) -> None:
        taken = max(map(number_of, (*seen.live, *seen.ended)), default=0)
        self._number = max(self._number, taken) + 1
        try:
            runner = self._service.make_runner(scale_set.id, self._builds.name(self._number))
        except GithubError as error:
            if error.status == _GONE:
                self._state.lost()
            raise
        try:
            row = self._builds.start(scale_set.id, self._number, runner)
        except LedgerError:
            raise  # it may be queued
        except Exception:
            self._take_back(runner.id)
            raise
        if row is None:
            self._take_back(runner.id)
            return
        self._lived[row.id] = runner.name
        self._ours.add(row.id)
        log.info("%s: runner %s is build %s", scale_set.name, runner.name, row.id)

    def _take_back(self, runner: int) -> None:
        """Withdraw a runner that no build will be. GitHub does so too, after a day."""
        with contextlib.suppress(GithubError):
            self._service.dismiss(runner)

    def _tell_ended(self, seen: RunnersSeen, jobs: KnownJobs) -> None:
        """Say how runners ended that lived when we looked last. One that we started, and heard of
        no job of, had none."""
        live = {row.id: row.spec.labels.get(RUNNER, "") for row in seen.live}
        excused = jobs.started | jobs.completed | self._busy | self._leaving
        for row in reversed(seen.ended):
            name = self._lived.get(row.id)
            if name is None:
                continue
            jobless = row.id in self._ours and name not in excused
            if jobless and row.result is Result.SUCCESS:
                self._jobless.add(row.id)
            _tell(row, name, jobless=jobless)
        names = set(live.values())
        self._state.keep(names)
        self._busy &= names
        self._leaving &= names
        self._ours.intersection_update(live)
        self._jobless.intersection_update(row.id for row in seen.ended)
        self._lived = live

    def _dismiss_idle(
        self, seen: RunnersSeen, news: JobNews, usable: Set[str], started: Set[str]
    ) -> None:
        """Let runners go that no job has wanted for a while: GitHub gives them none any more, and
        they leave by themselves."""
        busy = {row.id for row in seen.live if row.spec.labels.get(RUNNER) in started}
        idle = plan.surplus(seen.live, news, usable=usable, busy=busy)
        if not idle:
            self._idle_since = None
            return
        now = self._now()
        # It may have been set back.
        self._idle_since = now if self._idle_since is None else min(self._idle_since, now)
        if now - self._idle_since < self._settings.idle:
            return
        for row in idle:
            name = row.spec.labels[RUNNER]
            runner = self._service.find_runner(name)
            if runner is not None and not self._service.dismiss(runner):
                self._busy.add(name)  # it has a job after all
                continue
            self._leaving.add(name)
            log.info("runner %s has no job to wait for, and leaves", name)


def _tell(row: BuildRecord, name: str, *, jobless: bool) -> None:
    """Log a runner's end, with what its exit code means."""
    result = row.result.value if row.result else ""
    why = _meaning(row.exit_code) if row.exit_code is not None else row.message
    level = logging.INFO if row.result is Result.SUCCESS and not jobless else logging.WARNING
    job = ", without a job that we heard of" if jobless else ""
    log.log(level, "runner %s, build %s: %s%s: %s", name, row.id, result, job, why)


def _meaning(code: int) -> str:
    """The meaning of a runner's exit code."""
    return _CODES.get(code, "no code that the runner documents")
