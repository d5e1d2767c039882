"""Programs that a forge starts: commands of GARM's external provider, stages of GitLab's custom
executor. Each is a process of its own, which ends when it is done, and may die at any effect."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tests.faults.github_side import GithubWorld
from tests.faults.played_service import PlayedService
from tests.faults.tasks import Crash, Task
from vmrunner.api import entry
from vmrunner.config.build_request import SandboxRequest
from vmrunner.config.forges import GarmSettings, GitlabSettings
from vmrunner.errors import SandboxOver, VmrunnerError
from vmrunner.integrations.garm.bootstrap import Bootstrap
from vmrunner.integrations.garm.provider import GarmProvider
from vmrunner.integrations.gitlab.executor import GitlabExecutor
from vmrunner.integrations.gitlab.job import GitlabJob
from vmrunner.model import BuildState, Process

CONTROLLER = "garm"
POOL = "small"


class Program:
    """One process, as a world's node: `answer` is what it told, None if it failed or died."""

    asleep = stores = reaps = False
    _pids = itertools.count(9000)

    def __init__(
        self,
        world: GithubWorld,
        work: Callable[[PlayedService], Any],
        *,
        crash_at: int | None = None,
    ) -> None:
        pid = next(self._pids)
        self.process = Process(machine="m", boot="b", pid_namespace="n", pid=pid, started=pid)
        self.world, self.host = world, world.host
        self.dead = self.ledger_down = False
        self.crash_at = crash_at
        self.points: list[str] = []
        self.answer: Any = None
        self._task = Task(self, lambda: self._run(work))
        world.nodes.append(self)  # type: ignore[arg-type]

    @property
    def ended(self) -> bool:
        return self._task.ended

    def check(self) -> None:
        if self.dead:
            raise Crash

    def reach(self, point: str) -> None:
        self.points.append(point)
        dies = self.crash_at is not None and len(self.points) > self.crash_at
        if dies or (self.world.dies is not None and self.world.dies()):
            self.dead = True
            raise Crash

    def tick(self) -> None:
        self._task.step()

    def kill(self) -> None:
        """kill -9."""
        self.dead = True
        self._task.step()

    close = kill

    def _run(self, work: Callable[[PlayedService], Any]) -> None:
        try:
            self.answer = work(PlayedService(self))
        except VmrunnerError:
            self.answer = None


def garm_create(name: str, build: dict[str, Any]) -> Callable[[PlayedService], Any]:
    """GARM wants an instance of this name: its provider id."""
    wanted = Bootstrap.model_validate({"name": name, "instance-token": "t0ken", "pool_id": POOL})
    return lambda service: _garm(service, build).create(POOL, wanted)["provider_id"]


def garm_delete(name: str, instance: str | None = None) -> Callable[[PlayedService], Any]:
    """GARM wants it ended, by its provider id or, where it never heard that, by its name."""

    def work(service: PlayedService) -> bool:
        service.world.unwanted.add(name)
        _garm(service, {}).delete(instance or name)
        return True

    return work


def _garm(service: Any, build: dict[str, Any]) -> GarmProvider:
    return GarmProvider(service, GarmSettings.model_validate({"build": build}), CONTROLLER)


def gitlab_prepare(job: int, build: dict[str, Any]) -> Callable[[PlayedService], Any]:
    """GitLab Runner wants a VM for a job: its sandbox, once that is ready."""
    return lambda service: _gitlab(service, job, build).prepare(service.settings).id


def gitlab_clean_up(job: int) -> Callable[[PlayedService], Any]:
    """GitLab Runner is done with a job."""

    def work(service: PlayedService) -> bool:
        service.world.unwanted.add(str(job))
        _gitlab(service, job, {}).clean_up()
        return True

    return work


def _gitlab(service: PlayedService, job: int, build: dict[str, Any]) -> GitlabExecutor:
    settings = GitlabSettings.model_validate({"build": build})
    job_there = GitlabJob(server="gitlab.example", id=str(job), proof="p")
    return GitlabExecutor(_Runner(service), settings, job_there)  # type: ignore[arg-type]


class _Runner:
    """What the executor needs of a `Runner`."""

    def __init__(self, service: PlayedService) -> None:
        self.service = service

    def enter_sandbox(self, request: SandboxRequest, **_: Any) -> SimpleNamespace:
        """Queue it, and wait until it is ready."""
        service: Any = self.service
        row, _ = entry.enter(service, request)
        service.ensure_served(row.spec.provider)
        while not row.finished:
            if row.state is BuildState.RUNNING:
                return SimpleNamespace(row=row)
            Task.here.task.pause()
            row = service.ledger.builds.get(row.id)
        raise SandboxOver(f"sandbox {row.id} is over")
