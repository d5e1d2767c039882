"""The Python API: `run`, `Runner`. Everything is keyword-only but the command; durations take
"30m", seconds or a timedelta; every wait can have a timeout; what is returned never changes."""

from __future__ import annotations

import builtins
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from vmrunner.api.build import Build, raise_for
from vmrunner.api.errors import BuildError
from vmrunner.api.keywords import BuildOptions, Command, Duration, wish
from vmrunner.config import field_checks
from vmrunner.config import sources as configfile
from vmrunner.errors import LedgerError, NotFinished, NotFound, Unreadable
from vmrunner.lib import process, units
from vmrunner.model import BuildRecord as Row
from vmrunner.model import Finding, LogLine, Process
from vmrunner.runtime.app import App
from vmrunner.runtime.background import served
from vmrunner.services import cancel
from vmrunner.services.follow import BuildFollower
from vmrunner.services.logs import LogReader, lines
from vmrunner.services.requests import BuildRequest
from vmrunner.services.submit import Submission

if TYPE_CHECKING:
    from vmrunner.config.settings import Settings
    from vmrunner.core.audit_rules import Survivor
    from vmrunner.images import Progress
    from vmrunner.ledger import Ledger
    from vmrunner.reaper.report import Report

log = logging.getLogger("vmrunner")


class Runner:
    """Builds from this process. With no engine serving the ledger elsewhere, waiting runs one
    here. `settings`: default, what the configuration files and the environment say. Close it when
    done, or use it in a `with`."""

    def __init__(self, *, settings: Settings | None = None, app: App | None = None) -> None:
        self.app = app or App(settings or configfile.load().settings)
        self._host = self.app.host("api")
        self._unended: set[str] = set()  # builds of ours that were not seen to end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go. Builds that `submit` queued belong to the ledger: for those that have not ended,
        and for what this engine drove beside, a background engine is started, unless one serves
        them that stays."""
        engine, unended = self._host.own, tuple(self._unended)
        self._unended.clear()
        try:
            self._host.close()
            if (engine or unended) and (providers := self._left(engine, unended)):
                self.app.background.ensure(*providers)
        finally:
            self.app.close()

    def _left(self, engine: str | None, builds: Iterable[str]) -> set[str]:
        """The providers of these builds, as far as they have not ended, and of what the engine
        drove that nobody else minds: whoever waits for a build finds it another engine."""
        ledger = self.app.ledger
        try:
            own = {build.spec.provider for build in _found(ledger, builds) if not build.finished}
            drove = {
                build.spec.provider
                for build in ledger.builds.driven()
                if engine is not None and build.owner == engine and not _awaited(build)
            }
            return own | {name for name in drove if not served(ledger, [name], here=True)}
        except LedgerError as error:
            log.warning("%s", error)
            return set(self.app.settings.providers)

    # --- builds ---

    def submit(self, command: Command, /, **options: Unpack[BuildOptions]) -> Build:
        """Queue a build and return at once. It belongs to the ledger: it outlives this process."""
        build, _ = self.enter(wish(command, options))
        self._unended.add(build.id)
        self._host.ensure(build.spec.provider, staying=True)
        self._host.wake()
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
        build, new = self.enter(wish(command, options), submitter=process.current())
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
            self.cancel(build.id)
            self._settle(build.id)
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
            return Build(self.app.ledger.builds.find(field_checks.text(build, "build")), self)
        except NotFound as error:
            raise NotFound(str(error.args[0]), hint="Runner.list(limit=None) has all") from None

    def list(
        self,
        *,
        active: bool | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = 100,
    ) -> builtins.list[Build]:
        """Newest first. `active`: only those that have not finished (True) or have (False)."""
        rows = self.app.ledger.builds.list(active=active, labels=labels, limit=limit)
        return [Build(row, self) for row in rows]

    def cancel(self, build: str) -> Build:
        """Wish that it ends and its VM dies. Returns at once; wait for it if you need to."""
        row = cancel.cancel(self.app.ledger, self.get(build).id, wake=self._host.wake)
        return Build(row, self)

    # --- the house ---

    def reap(
        self, *, dry_run: bool = False, provider: str | None = None, orphans: bool = False
    ) -> Report:
        """One pass of the reaper over every provider, or one: what it found and did. `orphans`:
        also those that the cap on orphans holds back; look at them first."""
        from vmrunner.services import reap

        app = self.app
        return reap.reap(
            app.ledgers,
            app.providers,
            app.limits(),
            app.paths,
            provider=provider,
            dry_run=dry_run,
            orphans=orphans,
        )

    def audit(
        self,
        *,
        provider: str | None = None,
        tag: str | None = None,
        older_than: Duration | None = None,
    ) -> builtins.list[Survivor]:
        """Return what is alive and should not be; empty when all is well. With `tag` ("KEY=VALUE")
        and `older_than`: the machines with that tag that are older, whoever made them."""
        from vmrunner.services import audit

        return audit.audit(
            self.app.ledgers,
            self.app.providers,
            self.app.limits().limits,
            provider=provider,
            tag=None if tag is None else units.pair(tag, "tag"),
            older_than=None if older_than is None else units.duration(older_than, "older_than"),
        )

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
        wished: BuildRequest,
        *,
        submitter: Process | None = None,
    ) -> tuple[Row, bool]:
        """Check a wish, pack its source and queue it: the build, and whether it is a new one (not
        one that had its idempotency key already)."""
        app = self.app
        submission = Submission(
            settings=app.settings,
            paths=app.paths,
            ledgers=app.ledgers,
            providers=app.providers,
            transfer=app.sources,
        )
        admitted = submission.admit(submission.check(wished), warn=_warn)
        packed = submission.pack(admitted, on_image=_log_image)
        return submission.queue(packed, submitter=submitter)

    def lines(
        self, build: str, *, follow: bool, after: int = 0, end: float | None = None
    ) -> Iterator[LogLine]:
        """The log from line `after` on; with `follow` until the build has ended."""
        if follow:
            return lines(self._follower(build, end, after=after).chunks())
        return lines(LogReader(self.app.log(build), after=after).new_chunks())

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
            if end is not None and time.monotonic() >= end:
                raise NotFinished(f"{build} has not ended yet", hint="it goes on; wait again")

        return BuildFollower(
            self.app.ledger,
            self._host,
            build,
            log=self.app.log(build),
            after=after,
            leave=leave,
        )

    def _settle(self, build: str) -> None:
        """While the engine is ours, see the build's VM gone before going on."""
        if self._host.own:
            self._follower(build, None).settle()


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


def _found(ledger: Ledger, builds: Iterable[str]) -> Iterator[Row]:
    """Return the builds that the ledger still has, and can tell."""
    for build in builds:
        with contextlib.suppress(NotFound, Unreadable):
            yield ledger.builds.get(build)


def _awaited(build: Row) -> bool:
    """True if it belongs to a process that may live."""
    return build.submitter is not None and process.alive(build.submitter) is not False


def _warn(text: str) -> None:
    log.warning("%s", text)


def _log_image(progress: Progress) -> None:
    if progress.fraction == 1.0:
        log.info("VM image: %s took %.0f s", progress.stage, progress.seconds)
