"""The Python API: `run`, `Runner`. Everything is keyword-only but the command; durations take
"30m", seconds or a timedelta; every wait can have a timeout; what is returned never changes."""

from __future__ import annotations

import builtins
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Self, Unpack

from vmrunner.api import entry, remote_service
from vmrunner.api.build import Build, raise_for
from vmrunner.api.errors import BuildError
from vmrunner.api.keywords import BuildOptions, Command, Duration, build_request
from vmrunner.api.local_service import LocalService
from vmrunner.api.remote_service import RemoteService
from vmrunner.config import field_checks
from vmrunner.config import sources as configfile
from vmrunner.errors import ConfigError, NotFinished, NotFound, SandboxOver
from vmrunner.lib import cancellation, process, units
from vmrunner.model import BuildRecord as Row
from vmrunner.model import BuildState, Finding, LogLine, Process
from vmrunner.runtime.app import App
from vmrunner.services import build_filter
from vmrunner.services.build_filter import FilterWords
from vmrunner.services.follow import BuildFollower
from vmrunner.services.logs import LogReader, lines

if TYPE_CHECKING:
    from vmrunner.config.build_request import BuildRequest, SandboxRequest
    from vmrunner.config.settings import Settings
    from vmrunner.core.audit_rules import Survivor
    from vmrunner.core.cost_report import CostLine
    from vmrunner.reaper.report import Report
    from vmrunner.services.protocols import Service, ServingHost

SETTLED: float = 10.0  # seconds in which the ledger should know how a build ended


class Runner:
    """Builds from this process. With no engine serving the ledger elsewhere, waiting runs one
    here. `settings`: default, what the configuration files and the environment say. With `url` and
    `token`, or VMRUNNER_SERVER and VMRUNNER_TOKEN, a server does all that: no ledger, provider or
    configuration is needed here. `engine`: what an engine of this process is called; None: it is
    one in the background. `leave` is called in every wait, and what it raises ends that: a build
    that is ours is cancelled then. Close it when done, or use it in a `with`."""

    def __init__(
        self,
        *,
        url: str | None = None,
        token: str | None = None,
        settings: Settings | None = None,
        app: App | None = None,
        engine: str | None = "api",
        leave: Callable[[], object] = lambda: None,
    ) -> None:
        self._app: App | None = None
        self._leave = leave
        self.service: Service
        server = _server(url, token) if settings is None and app is None else None
        if server is not None:
            self.service = server
        else:
            self._app = app or App(settings or configfile.load().settings)
            self.service = LocalService(self._app.service_parts())
        self._host: ServingHost = self.service.host(engine)
        self._unended: set[str] = set()  # builds of ours that were not seen to end

    @property
    def app(self) -> App:
        """The parts at hand. Raises ConfigError where a server has them."""
        if self._app is None:
            raise ConfigError("this Runner speaks to a server", hint="ask it on the server")
        return self._app

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        """Name of the place that it asks, without what is secret."""
        return f"<Runner {self.service.place}>"

    def close(self) -> None:
        """Let go. Builds that `submit` queued belong to the ledger: for those that have not ended,
        and for what this engine drove beside, a background engine is started, unless one serves
        them that stays."""
        unended = tuple(self._unended)
        self._unended.clear()
        self.service.close(self._host, unended)

    # --- builds ---

    def submit(self, command: Command, /, **options: Unpack[BuildOptions]) -> Build:
        """Queue a build and return at once. It belongs to the ledger: it outlives this process."""
        build, _ = self.enter(build_request(command, options))
        self._unended.add(build.id)
        self._host.ensure(build.spec.provider, staying=True)
        return Build(build, self)

    def run(
        self,
        command: Command,
        /,
        *,
        check: bool = True,
        on_log: Callable[[LogLine], object] | None = None,
        wait_timeout: Duration | None = None,
        **options: Unpack[BuildOptions],
    ) -> Build:
        """Submit, follow and wait. The build belongs to this process and ends with it.

        `on_log` gets each line. `check`: raise `BuildFailed`, `BuildTimeout`, `BuildCancelled` or
        `BuildLost` unless it succeeded. An exception on the way (Ctrl-C, in `on_log`) cancels it;
        so does `wait_timeout`, which raises `NotFinished`. One that had this idempotency key
        already is another's: it is waited for, and never cancelled."""
        seconds = None if wait_timeout is None else units.duration(wait_timeout, "wait_timeout")
        build, new = self.enter(build_request(command, options), submitter=process.current())
        if new:
            self._unended.add(build.id)
        try:
            end = _end(seconds)
            if on_log is not None:
                for line in self.lines(build.id, follow=True, end=end):
                    on_log(line)
            return self.wait(build.id, end=end, check=check)
        except BuildError:
            raise
        except BaseException as error:
            if not new:
                raise
            self._give_up(build.id)
            if isinstance(error, NotFinished):
                raise NotFinished(
                    f"{build.id} did not end within wait_timeout, and is cancelled",
                    hint="a longer one, or `submit` and `wait`, which cancels nothing",
                ) from None
            raise

    def get(self, build: str) -> Build:
        """Find a build by id, by the beginning of an id, or by name (the newest). Raises
        `NotFound`."""
        try:
            return Build(self.service.ledger.builds.find(field_checks.text(build, "build")), self)
        except NotFound as error:
            raise NotFound(str(error.args[0]), hint="Runner.list(limit=None) has all") from None

    def list(
        self,
        *,
        active: bool | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = 100,
        **words: Unpack[FilterWords],
    ) -> builtins.list[Build]:
        """Newest first. `active`: only those that have not finished (True) or have (False).
        `state`, `result`, `actor`: those of any of these; `name`: of this name, or with `*` at its
        end beginning so; `provider`; `since`, `until`: a time ("2026-11-30T08:00:00Z", a datetime),
        or so long ago ("24h"): of a finished build when it finished, of another when it was
        submitted. An actor is who submitted it, or the name of a token."""
        if active is not None:
            if words.get("state") is not None:
                raise ConfigError("active: state says that already", hint="give one of the two")
            words["state"] = "active" if active else "finished"
        choice = build_filter.choice(words, time.time(), labels=labels)
        rows = self.service.ledger.builds.chosen(choice, limit)
        return [Build(row, self) for row in rows]

    def cancel(self, build: str) -> Build:
        """Cancel it: it ends, and its VM dies. Returns at once; wait for it if you need to."""
        row = self.service.cancel(self.get(build).id)
        self._host.wake()
        return Build(row, self)

    # --- the house ---

    def reap(
        self, *, dry_run: bool = False, provider: str | None = None, orphans: bool = False
    ) -> Report:
        """One pass of the reaper over every provider, or one: what it found and did. `orphans`:
        also those that the cap on orphans holds back; look at them first."""
        return self.service.reap(provider=provider, dry_run=dry_run, orphans=orphans)

    def audit(
        self,
        *,
        provider: str | None = None,
        tag: str | None = None,
        older_than: Duration | None = None,
    ) -> builtins.list[Survivor]:
        """Machines that are alive and should not be; empty: all is well. With `tag` ("KEY=VALUE")
        and `older_than`: the machines with that tag that are older, of any maker."""
        return self.service.audit(
            provider=provider,
            tag=None if tag is None else units.pair(tag, "tag"),
            older_than=None if older_than is None else units.duration(older_than, "older_than"),
        )

    def costs(self, *, by: str = "provider", since: Duration = "7d") -> builtins.list[CostLine]:
        """Costs of that time: of builds by provider, by day (UTC) or by the values
        of a label (`by="label:team"`), of VMs of pools that no build used, and of images. A
        `line.cost.usd` of None: a price is unknown."""
        return self.service.costs(by, units.duration(since, "since"))

    def doctor(self, *, provider: str | None = None) -> builtins.list[Finding]:
        """Check that everything is there, and allowed. Each finding with its fix."""
        from vmrunner.services import doctor

        app = self.app
        return doctor.doctor(
            app.ledgers,
            app.providers,
            app.limits(),
            app.paths,
            store=lambda: app.store,
            provider=provider,
        )

    # --- what handles and the command line stand on ---

    def enter(
        self,
        request: BuildRequest,
        *,
        submitter: Process | None = None,
    ) -> tuple[Row, bool]:
        """Check a request, pack its source and queue it. Returns the build, and True if it is a new
        one, not one that had its idempotency key already."""
        return entry.enter(self.service, request, submitter=submitter)

    def enter_sandbox(
        self, request: SandboxRequest, *, owned: bool, timeout: float | None
    ) -> Build:
        """Start a sandbox and wait until it is ready: see `Sandbox.create`."""
        build, new = self.enter(request, submitter=process.current() if owned else None)
        self._unended.add(build.id)
        try:
            if not owned:
                self._host.ensure(build.spec.provider, staying=True)
            for row, _ in self._follower(build.id, _end(timeout)).rounds():
                if row.state is BuildState.RUNNING:
                    return Build(row, self)
            done = self.wait(build.id, check=True)
        except BuildError:
            raise
        except BaseException as error:
            if new:
                self.end_sandbox(build.id)
            if new and isinstance(error, NotFinished):
                raise NotFinished(
                    f"{build.id} was not ready within wait_timeout, and is cancelled",
                    hint="a longer one",
                ) from None
            raise
        raise SandboxOver(f"sandbox {done.id} is over: {done.message or done.reason}")

    def end_sandbox(self, build: str) -> None:
        """End it now, with its VM; while the engine is ours, see that gone."""
        self._give_up(build)
        self._unended.discard(build)

    def _give_up(self, build: str) -> None:
        """Cancel it and see to it that an engine does that: its wait may have ended before it had
        one."""
        row = self.service.cancel(build)
        if not row.finished:
            self._host.ensure(row.spec.provider)
        self._host.wake()
        self._settle(build)

    def settled(self, build: str) -> Build:
        """Return a build whose VM seems to be gone: as it ended, if that is known soon."""
        self._follower(build, None).settle(SETTLED)
        return self.get(build)

    def lines(
        self, build: str, *, follow: bool, after: int = 0, end: float | None = None
    ) -> Iterator[LogLine]:
        """The log from line `after` on; with `follow` until the build has ended."""
        if follow:
            return lines(self._follower(build, end, after=after).chunks())
        return lines(LogReader(self.service.log(build), after=after).new_chunks())

    def wait(
        self,
        build: str,
        *,
        timeout: Duration | None = None,
        end: float | None = None,
        check: bool = False,
    ) -> Build:
        """Wait until it has ended (or is held). `NotFinished` when the wait's own time runs out."""
        follower = self._follower(build, _end(timeout) if end is None else end)
        for _ in follower.rounds():
            pass
        self._settle(build)
        done = Build(follower.read(), self)
        if done.finished:
            self._unended.discard(build)
        if check:
            raise_for(done)
        return done

    def _follower(self, build: str, end: float | None, *, after: int = 0) -> BuildFollower:
        def leave() -> None:
            self._leave()
            if end is not None and time.monotonic() >= end:
                raise NotFinished(f"{build} has not ended yet", hint="it goes on; wait again")
            cancellation.check()

        return BuildFollower(
            self.service.ledger,
            self._host,
            build,
            log=self.service.log(build),
            after=after,
            leave=leave,
            interval=self.service.follow_interval,
        )

    def _settle(self, build: str) -> None:
        """While the engine is ours, see the build's VM gone before going on."""
        if self._host.own:
            self._follower(build, None).settle()


def _server(url: str | None, token: str | None) -> RemoteService | None:
    """Return the server that is named here or in the environment."""
    if url is None and token is not None:
        raise ConfigError("token: there is no url that it is for", hint="Runner(url=…, token=…)")
    if url is not None:
        return RemoteService(url, token or "")
    return remote_service.from_environment(os.environ)


def run(
    command: Command,
    /,
    *,
    check: bool = True,
    on_log: Callable[[LogLine], object] | None = None,
    wait_timeout: Duration | None = None,
    **options: Unpack[BuildOptions],
) -> Build:
    """One build in one fresh VM, from here to its end. See `Runner.run`."""
    runner = Runner()
    try:
        return runner.run(command, check=check, on_log=on_log, wait_timeout=wait_timeout, **options)
    finally:
        runner.close()


def _end(timeout: Duration | None) -> float | None:
    return None if timeout is None else time.monotonic() + units.duration(timeout, "timeout")
