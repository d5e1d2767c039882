"""A world with GitHub in it, and a process of `vmrunner github serve` that can be killed at any
effect: a request to GitHub, or a build that is queued."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2

from tests.faults.cloud_side import CloudResource
from tests.faults.commands import reachable
from tests.faults.played_service import PlayedService
from tests.faults.tasks import Crash
from tests.faults.world import TTL, Broken, World
from tests.support import fake_github
from tests.support.fake_github import FakeGithub, FakeRunner
from vmrunner.config import forges
from vmrunner.config.forges import ScaleSetSettings
from vmrunner.errors import NotFound, VmrunnerError
from vmrunner.integrations.garm.bootstrap import NAME
from vmrunner.integrations.github.http import GithubHttp
from vmrunner.integrations.github.identity import PersonalToken, ServiceTokens
from vmrunner.integrations.github.listener import JobListener, pause_after
from vmrunner.integrations.github.runners import RUNNER, RunnerBuilds
from vmrunner.integrations.github.scaler import RunnerScaler
from vmrunner.integrations.github.service import ActionsService
from vmrunner.integrations.github.state import ScaleSetState
from vmrunner.integrations.gitlab.executor import JOB
from vmrunner.model import BuildChoice, BuildRecord, BuildState, Process, Reason, Result
from vmrunner.providers.fake import Fault

JOB_SECONDS = 8.0
MOST = 2
LOST = 300.0  # seconds after which GitHub gives up a runner that is not heard
NEWS = 20  # messages that are heard at once, at most


class GithubWorld(World):
    """Each VM has a runner in it, which comes when its steps start, has one job and leaves. It
    works on while nobody of ours lives.

    Promised of jobs: a runner comes out of one VM, none that works is ended but by a user or with
    its VM, and there are never more than may be."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.github = FakeGithub(self.clock)
        self.job_seconds = JOB_SECONDS
        self.job_lengths: dict[int, float] = {}  # by job, where it is not `job_seconds`
        self.most = MOST
        self.arrives = True  # runners come; else their VMs are up, and GitHub does not hear of it
        self.dies: Callable[[], bool] | None = None  # does `github serve` die at this effect?
        self.fate: Callable[[], Fault | None] | None = None  # what becomes of this request?
        self.unanswered: Callable[[], bool] | None = None  # does the ledger's answer get lost?
        self.unwanted: set[str] = set()  # names of runners and jobs whose end their forge wished
        self._seats: dict[str, tuple[str, str, CloudResource]] = {}  # builds and VMs, by runner
        self._began: dict[tuple[int, str], float] = {}
        self._unheard: dict[str, float] = {}

    def seconds_of(self, build: BuildRecord) -> float:
        """How long its steps take, asked again and again."""
        name = build.spec.labels.get(RUNNER)
        if name is None:
            return super().seconds_of(build)
        if self.github.down or not self.arrives:
            return float("inf")  # a runner waits for its service too
        self._sit(name, build)
        runner = self.github.comes(name)
        return 0.0 if runner is None or runner.done else float("inf")

    def _sit(self, name: str, build: BuildRecord) -> None:
        """The VM of this build is where the runner is. What it registers with is of one use."""
        assert build.instance is not None
        if name not in self._seats:
            ref = self.truth.instances.get(build.instance).ref
            assert ref is not None
            self._seats[name] = (build.id, build.instance, self.cloud.machines[ref])
        elif self._seats[name][1] != build.instance:
            raise Broken(f"3 no double: runner {name} came out of two VMs")

    def _work(self) -> None:
        """What runners do, and what GitHub makes of those that are silent."""
        now = self.clock()
        for runner in list(self.github.runners.values()):
            if runner.name not in self._seats:
                continue
            build, _, machine = self._seats[runner.name]
            if reachable(self, machine):
                self._check_working(runner, build, machine)
                if self._over(runner):
                    assert runner.job is not None
                    self.github.finish(runner.job)
            elif runner.job is None:
                runner.online = False
            elif now >= self._unheard.setdefault(runner.name, now) + LOST:
                self.github.finish(runner.job, "failed")

    def _over(self, runner: FakeRunner) -> bool:
        if runner.job is None:
            return False
        began = self._began.setdefault((runner.job.id, runner.name), self.clock())
        seconds = self.job_lengths.get(runner.job.id, self.job_seconds)
        return not self.github.down and self.clock() >= began + seconds

    def _check_working(self, runner: FakeRunner, build: str, machine: CloudResource) -> None:
        """Promise 2, of a runner with a job in a VM that is well."""
        if runner.job is None or machine.order is None:
            return
        try:
            row = self.truth.builds.get(build)
        except NotFound:
            return  # the ledger was lost: it lives until E
        if row.cancel is Reason.USER and build not in self.user_cancelled:
            raise Broken(f"2 no murder: {build} was cancelled, whose runner works")
        if row.result in (Result.SUCCESS, Result.FAILURE):
            raise Broken(f"2 no murder: {build} was ended, whose runner works")

    def check(self, *, survivors: bool = True) -> None:
        self._work()
        super().check(survivors=survivors)
        rows = self.truth.builds.list(active=True)
        live = [row for row in rows if RUNNER in row.spec.labels]
        if len(live) > self.most:
            raise Broken(f"3 no double: more runners than {self.most}: {live}")
        self._check_named(rows)

    def _check_named(self, rows: list[BuildRecord]) -> None:
        """A runner of GARM's and a job of GitLab's has one VM, which nobody else ends."""
        names = {row.id: row.spec.labels.get(NAME) or row.spec.labels.get(JOB) for row in rows}
        wanted: Counter[str] = Counter()
        for row in rows:
            if (name := names[row.id]) is None:
                continue
            if JOB in row.spec.labels:
                self.sandboxes.add(row.id)
            if row.cancel is None:
                wanted[name] += 1
            elif row.cancel is Reason.USER and not {row.id, name} & (
                self.user_cancelled | self.unwanted
            ):
                raise Broken(f"2 no murder: {row.id} of {name} was cancelled, which nobody wished")
        if twice := [name for name, count in wanted.items() if count > 1]:
            raise Broken(f"3 no double: {twice} have two VMs each")

    def check_jobs(self) -> None:
        """Each job is done or was taken back; or its runner was lost, and its build tells so."""
        for job in self.github.jobs.values():
            if job.state != "completed":
                raise Broken(f"6 no forgotten job: {job}")
            if job.result == "failed":
                rows = self.truth.builds.list(labels={RUNNER: job.runner})
                if any(row.result is Result.SUCCESS for row in rows):
                    raise Broken(f"6 no forgotten job: nobody told that {job} was lost")

    def forge(self, *, crash_at: int | None = None, **options: Any) -> ForgeProcess:
        process = ForgeProcess(self, crash_at=crash_at, **options)
        self.nodes.append(process)  # type: ignore[arg-type]
        return process

    def builds(self) -> list[BuildRecord]:
        return list(self.truth.builds.list())

    def running(self) -> list[BuildRecord]:
        return list(self.truth.builds.chosen(BuildChoice(states=[BuildState.RUNNING])))

    def all_done(self) -> bool:
        done = all(job.state == "completed" for job in self.github.jobs.values())
        return done and self.quiet()


class ForgeProcess:
    """One process of `vmrunner github serve`, as a world's node. `options`: its scale set's
    configuration. What it hears at once is one message, or all that there is (`hears_all`)."""

    stores = reaps = False
    _pids = itertools.count(5000)

    def __init__(
        self,
        world: GithubWorld,
        *,
        crash_at: int | None = None,
        hears_all: bool = False,
        skew: float | None = None,
        **options: Any,
    ) -> None:
        pid = next(self._pids)
        self.host = world.host
        if skew is not None:
            self.host.skew = skew
        self.process = Process(machine="m", boot="b", pid_namespace="n", pid=pid, started=pid)
        self.world = world
        self.dead = self.asleep = self.ledger_down = False
        self.awake_since = world.clock()
        self.crash_at = crash_at
        self.hears_all = hears_all
        self.points: list[str] = []
        self.failures: list[VmrunnerError] = []
        build = {"provider": world.cloud.name, "timeout": 60, "ttl": TTL}
        settings = ScaleSetSettings.model_validate(
            {"name": "fast", "max_runners": world.most, "build": build} | options
        )
        place = forges.target(fake_github.ORG)
        http = GithubHttp(now=self._clock, transport=_Transport(self, world.github))
        tokens = ServiceTokens(http, place, PersonalToken(fake_github.TOKEN))
        actions = ActionsService(http, tokens)
        service: Any = PlayedService(self)
        self.state = ScaleSetState()
        self.listener = JobListener(settings, self.state, actions, f"host-{pid}", self._clock)
        builds = RunnerBuilds(service, place, settings)
        self.scaler = RunnerScaler(settings, self.state, actions, builds, self._clock)
        self._failures = {"listener": 0, "scaler": 0}
        self._again = {"listener": 0.0, "scaler": 0.0}

    def _clock(self) -> float:
        """Its host's clock."""
        return self.world.clock() + self.host.skew

    def reach(self, point: str) -> None:
        self.points.append(point)
        dies = self.crash_at is not None and len(self.points) > self.crash_at
        if dies or (self.world.dies is not None and self.world.dies()):
            self.dead = True
            raise Crash

    def tick(self) -> None:
        try:
            self._try("listener", self.listener.step)
            for _ in range(NEWS if self.hears_all else 0):
                if (news := self.state.jobs.news) is not None and news.sure:
                    break
                self._try("listener", self.listener.step)
            self._try("scaler", self.scaler.look)
        except Crash:
            self.dead = True

    def _try(self, name: str, work: Any) -> None:
        now = self.world.clock()
        if now < self._again[name]:
            return
        try:
            work()
            self._failures[name] = 0
        except VmrunnerError as error:
            self.failures.append(error)
            self._failures[name] += 1
            self._again[name] = now + pause_after(error, self._failures[name], lambda: 0.5)

    def kill(self) -> None:
        """kill -9."""
        self.dead = True

    close = kill


class _Transport(httpx2.BaseTransport):
    """The way to GitHub. A request and its answer are two effects: either may be the last."""

    def __init__(self, process: ForgeProcess, github: FakeGithub) -> None:
        self._process = process
        self._way = github.transport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        point = f"{request.method} {request.url.path}"
        counts = request.method != "GET"
        if counts:
            self._process.reach(f"before {point}")
        fate = self._process.world.fate
        fault = fate() if fate is not None else None
        if fault is Fault.LOST_REQUEST:
            raise httpx2.ConnectError("the world cut it off")
        if fault is Fault.SERVER_ERROR:
            return httpx2.Response(502)
        if fault is Fault.THROTTLE:
            return httpx2.Response(429, headers={"retry-after": "20"})
        answer = self._way.handle_request(request)
        if fault is Fault.LOST_RESPONSE:
            raise httpx2.ReadTimeout("the world lost the answer")
        if counts:
            self._process.reach(f"after {point}")
        return answer
