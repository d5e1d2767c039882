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
    """Starts and follows builds, here or at a server. Close it when done, or use it in a `with`.

    Without a server it uses the ledger of `settings` (default: the configuration files and the
    environment). If no engine serves that ledger, this process drives builds while it waits.

    With `url` and `token`, or VMRUNNER_SERVER and VMRUNNER_TOKEN, a server does all that; no
    ledger, provider or configuration is needed here.

    `engine`: name of this process's engine; None starts one in the background instead. `leave` is
    called again and again in every wait. An exception from it ends the wait, and cancels a build
    that belongs to this process. Raises `ConfigError` for a configuration that cannot be used."""

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
        """Parts of the local application. Raises ConfigError if this Runner uses a server."""
        if self._app is None:
            raise ConfigError("this Runner speaks to a server", hint="ask it on the server")
        return self._app

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        """Place of the ledger or server, without secrets."""
        return f"<Runner {self.service.place}>"

    def close(self) -> None:
        """Release everything. Builds from `submit` go on: if no other engine drives those that have
        not ended, a background engine is started for them."""
        unended = tuple(self._unended)
        self._unended.clear()
        self.service.close(self._host, unended)

    # --- builds ---

    def submit(self, command: Command, /, **options: Unpack[BuildOptions]) -> Build:
        """Queue a build and return at once. The build outlives this process. `command`: a shell
        line, the words of one command, or a list of `Step`; `options`: those of docs/api.md.
        Raises `ConfigError` for a value that cannot be used; then nothing is queued."""
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
        """Submit a build, follow it, and return it once it has ended. The build belongs to this
        process and ends with it. `command` and `options` as with `submit`.

        `on_log` is called with each line of the log. `check`: raise `BuildFailed`, `BuildTimeout`,
        `BuildCancelled` or `BuildLost` unless it succeeded. An exception meanwhile (Ctrl-C, or
        from `on_log`) cancels the build. So does the end of `wait_timeout`, which raises
        `NotFinished`. If `idempotency_key` names a build that exists, that one is waited for and
        never cancelled."""
        if on_log is not None and not callable(on_log):
            hint = "give a function that takes a line"
            raise ConfigError(f"on_log: {on_log!r:.60} cannot be called", hint=hint)
        seconds = None if wait_timeout is None else units.duration(wait_timeout, "wait_timeout")
        build, new = self.enter(build_request(command, options), submitter=process.current())
        try:
            if new:
                self._unended.add(build.id)
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
        """Return builds that match every filter, newest first: at most `limit`, None: all.

        `active`: only unfinished (True) or finished (False) ones. `labels`: all of these. `state`,
        `result`, `actor`: one value or several, of which one must match; an actor is a submitter,
        or the name of a token. `name`: the exact name, or with `*` at its end a beginning.
        `provider`: its name. `since` (inclusive) and `until` (exclusive): a time
        ("2026-11-30T08:00:00Z", a datetime) or a time ago ("24h"), compared with the end of a
        finished build and the submission of others. Raises `ConfigError`;
        TypeError for a keyword that there is not."""
        if unknown := sorted(words.keys() - FilterWords.__annotations__.keys()):
            names = [*FilterWords.__annotations__, "active", "labels", "limit"]
            hint = units.did_you_mean(unknown[0], names)
            raise TypeError(f"no filter {unknown[0]!r} of builds ({hint})")
        if active is not None:
            field_checks.flag(active, "active")
            if words.get("state") is not None:
                raise ConfigError("active: state says that already", hint="give one of the two")
            words["state"] = "active" if active else "finished"
        if limit is not None:
            field_checks.whole(limit, "limit", 0, units.MOST_ROWS)
        choice = build_filter.choice(words, time.time(), labels=labels)
        rows = self.service.ledger.builds.chosen(choice, limit)
        return [Build(row, self) for row in rows]

    def cancel(self, build: str) -> Build:
        """Cancel a build and end its VM. Returns at once; `wait` for the end. Raises `NotFound`."""
        row = self.service.cancel(self.get(build).id)
        self._host.wake()
        return Build(row, self)

    # --- the house ---

    def reap(
        self, *, dry_run: bool = False, provider: str | None = None, orphans: bool = False
    ) -> Report:
        """Run one pass of the reaper over all providers, or one, and return the VMs that it found
        and ended. `dry_run`: end nothing. `orphans`: end also those that the cap on orphans holds
        back; look at them first."""
        return self.service.reap(provider=provider, dry_run=dry_run, orphans=orphans)

    def audit(
        self,
        *,
        provider: str | None = None,
        tag: str | None = None,
        older_than: Duration | None = None,
    ) -> builtins.list[Survivor]:
        """Return the machines that are alive and should not be; an empty list is good. With `tag`
        ("KEY=VALUE") and `older_than` ("2h"): all older machines with that tag, also those
        that vmrunner did not make."""
        return self.service.audit(
            provider=provider,
            tag=None if tag is None else units.pair(field_checks.text(tag, "tag"), "tag"),
            older_than=None if older_than is None else units.duration(older_than, "older_than"),
        )

    def costs(self, *, by: str = "provider", since: Duration = "7d") -> builtins.list[CostLine]:
        """Return the costs since so long ago, in USD: of builds, of VMs of pools that no build
        used, and of images. `by`: "provider", "day" (UTC), or the values of a label
        ("label:team"). `line.cost.usd` is None if a price is unknown."""
        return self.service.costs(by, units.duration(since, "since"))

    def doctor(self, *, provider: str | None = None) -> builtins.list[Finding]:
        """Check that all that builds need is there and allowed. Returns findings with fixes."""
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
        """Check a request, pack its source and queue it. Returns the build, and False if it existed
        already with this idempotency key."""
        return entry.enter(self.service, request, submitter=submitter)

    def enter_sandbox(
        self, request: SandboxRequest, *, owned: bool, timeout: float | None
    ) -> Build:
        """Start a sandbox and wait until it is ready; see `Sandbox.create`."""
        build, new = self.enter(request, submitter=process.current() if owned else None)
        try:
            self._unended.add(build.id)
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
        """End a sandbox now, with its VM. If this process drives it, wait until the VM is gone."""
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
        """Return a build whose VM seems to be gone, with its end if that is known soon."""
        self._follower(build, None).settle(SETTLED)
        return self.get(build)

    def lines(
        self, build: str, *, follow: bool, after: int = 0, end: float | None = None
    ) -> Iterator[LogLine]:
        """Yield the lines of a log after number `after`; with `follow` until the build ends."""
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
        """Wait until a build has ended or is held. Raises `NotFinished` at the wait's own timeout,
        and with `check` a `BuildError` unless it succeeded."""
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
    """Run one build in one fresh VM and return it once it has ended; see `Runner.run`."""
    runner = Runner()
    try:
        return runner.run(command, check=check, on_log=on_log, wait_timeout=wait_timeout, **options)
    finally:
        runner.close()


def _end(timeout: Duration | None) -> float | None:
    return None if timeout is None else time.monotonic() + units.duration(timeout, "timeout")
