"""The Python API: `run`, `Runner`. Everything is keyword-only but the command; durations take
"30m", seconds or a timedelta; every wait can have a timeout; what is returned never changes."""

from __future__ import annotations

import builtins
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from vmrunner.api.build import Build, raise_for
from vmrunner.api.errors import BuildError
from vmrunner.api.keywords import BuildOptions, Command, Duration, wish
from vmrunner.config import field_checks
from vmrunner.config import sources as configfile
from vmrunner.errors import LedgerError, NotFinished
from vmrunner.lib import ids, private_dirs, process, units
from vmrunner.model import BuildRecord as Row
from vmrunner.model import BuildState, Chunk, Finding, LogLine, Process, Reason
from vmrunner.runtime.app import App
from vmrunner.runtime.engine_host import EngineHost
from vmrunner.services import preflight, requests
from vmrunner.services import sources as source
from vmrunner.services.logs import FOLLOW_INTERVAL, LogReader, ended, follow, lines
from vmrunner.services.requests import BuildRequest, CheckedRequest

if TYPE_CHECKING:
    from vmrunner.config.settings import Settings
    from vmrunner.core.audit_rules import Survivor
    from vmrunner.images import Progress
    from vmrunner.reaper.report import Report
    from vmrunner.services.preflight import ImageToBuild

log = logging.getLogger("vmrunner")


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedBuild:
    """A build that only has to be queued. Its source lies in the spool."""

    build: str
    checked: CheckedRequest
    spool: Path


class Runner:
    """Builds from this process. With no engine serving the ledger elsewhere, waiting runs one
    here. `settings`: default, what the configuration files and the environment say. Close it when
    done, or use it in a `with`."""

    def __init__(self, *, settings: Settings | None = None, app: App | None = None) -> None:
        self.app = app or App(settings or configfile.load().settings)
        self._help = EngineHost(self.app, "api")
        self._submitted = False

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
        """Let go. Builds that `submit` queued belong to the ledger: for those that have not ended
        a background engine is started, unless one serves them that stays."""
        leaves = self._help.own or self._submitted
        self._submitted = False
        try:
            self._help.close()
            if leaves and (providers := self._unended()):
                self.app.ensure_background(*providers)
        finally:
            self.app.close()

    def _unended(self) -> set[str]:
        """The providers of all that has not ended."""
        builds = self.app.ledger.builds
        try:
            return builds.awaited() | {build.spec.provider for build in builds.driven()}
        except LedgerError as error:
            log.warning("%s", error)
            return set(self.app.settings.providers)

    # --- builds ---

    def submit(self, command: Command, /, **options: Unpack[BuildOptions]) -> Build:
        """Queue a build and return at once. It belongs to the ledger: it outlives this process."""
        build, _ = self.enter(wish(command, options))
        self._submitted = True
        self._help.ensure(build.spec.provider, staying=True)
        self._help.wake()
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
            self._settle(build.id, cancelled=True)
            if isinstance(error, NotFinished):
                raise NotFinished(
                    f"{build.id} did not end within wait_timeout, and is cancelled",
                    hint="a longer one, or `submit` and `wait`, which cancels nothing",
                ) from None
            raise

    def get(self, build: str) -> Build:
        """By id, by the beginning of an id, or by name (the newest). Raises `NotFound`."""
        return Build(self.app.ledger.builds.find(field_checks.text(build, "build")), self)

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
        row = self.get(build)._row
        row = self.app.ledger.builds.request_cancel(
            row.id, Reason.USER, time.time(), by=process.user()
        )
        self._help.wake()
        return Build(row, self)

    # --- the house ---

    def reap(
        self, *, dry_run: bool = False, provider: str | None = None, orphans: bool = False
    ) -> Report:
        """One pass of the reaper over every provider, or one: what it found and did. `orphans`:
        also those that the cap on orphans holds back; look at them first."""
        from vmrunner.services import doctor as care

        return care.reap(self.app, provider=provider, dry_run=dry_run, orphans=orphans)

    def audit(
        self,
        *,
        provider: str | None = None,
        tag: str | None = None,
        older_than: Duration | None = None,
    ) -> builtins.list[Survivor]:
        """What is alive and should not be; empty when all is well. With `tag` ("KEY=VALUE") and
        `older_than`: the machines with that tag that are older, whoever made them."""
        from vmrunner.services import doctor as care

        return care.audit(
            self.app,
            provider=provider,
            tag=None if tag is None else units.pair(tag, "tag"),
            older_than=None if older_than is None else units.duration(older_than, "older_than"),
        )

    def doctor(self, *, provider: str | None = None) -> builtins.list[Finding]:
        """Is everything there, and allowed? Each finding with its fix."""
        from vmrunner.services import doctor as care

        return care.doctor(self.app, provider=provider)

    # --- what handles and the command line stand on ---

    def enter(
        self,
        wished: BuildRequest,
        *,
        submitter: Process | None = None,
        on_image: Callable[[Progress], None] | None = None,
    ) -> tuple[Row, bool]:
        """Check a wish, pack its source and queue it: the build, and whether it is a new one (not
        one that had its idempotency key already)."""
        checked = requests.check(wished, self.app.settings)
        for text in checked.warnings:
            log.warning("%s", text)
        passed = preflight.check(self.app, checked.spec)
        for text in passed.warnings:
            log.warning("%s", text)
        packed = self.pack(checked, passed.making, on_image or _log_image)
        return self.queue(packed, submitter=submitter)

    def pack(
        self,
        checked: CheckedRequest,
        making: ImageToBuild | None,
        on_image: Callable[[Progress], None],
    ) -> PackedBuild:
        """All of `enter` that takes time: the source into the spool and, when nothing can be wrong
        with the build any more, its VM's image. When it breaks off it leaves no source."""
        build = ids.build_id()
        spool = self.app.paths.sources / f"{build}.tar"
        try:
            if checked.source is not None:
                private_dirs.make(spool.parent)
                most = self.app.settings.limits.source_bytes
                source.spool(checked.source, spool, most=most)
            if making is not None and self.app.ledger.builds.same(checked.spec) is None:
                log.info("%s: it is made", making.why)
                making.make(on_image)
        except BaseException:
            spool.unlink(missing_ok=True)
            raise
        return PackedBuild(build=build, checked=checked, spool=spool)

    def queue(self, packed: PackedBuild, *, submitter: Process | None = None) -> tuple[Row, bool]:
        """The last part of `enter`."""
        new = False
        try:
            row, new = self.app.ledger.builds.submit(
                packed.checked.spec,
                id=packed.build,
                now=time.time(),
                submitter=submitter,
                secrets=packed.checked.secrets,
            )
        finally:
            if not new:
                packed.spool.unlink(missing_ok=True)
        return row, new

    def lines(
        self, build: str, *, follow: bool, after: int = 0, end: float | None = None
    ) -> Iterator[LogLine]:
        """The log from line `after` on; with `follow` until the build has ended."""
        if not follow:
            return lines(LogReader(self.app.ledger, build, after=after).new_chunks())
        return lines(self._chunks(build, after, end))

    def wait(
        self,
        build: str,
        *,
        timeout: Duration | None = None,
        end: float | None = None,
        check: bool = False,
    ) -> Build:
        """Until it has ended (or is held). `NotFinished` when the wait's own time runs out."""
        end = _end(timeout) if end is None else end
        while True:
            row = self.app.ledger.builds.get(build)
            if ended(row):
                break
            self._pause(FOLLOW_INTERVAL, row, end)
        self._settle(build)
        done = Build(self.app.ledger.builds.get(build), self)
        if check:
            raise_for(done)
        return done

    def _chunks(self, build: str, after: int, end: float | None) -> Iterator[Chunk]:
        row = self.app.ledger.builds.get(build)

        def pause(seconds: float) -> None:
            self._pause(seconds, row, end)

        return follow(self.app.ledger, build, after=after, pause=pause)

    def _pause(self, seconds: float, row: Row, end: float | None) -> None:
        if end is not None and time.monotonic() >= end:
            raise NotFinished(f"{row.id} has not ended yet", hint="it goes on; wait again")
        self._help.ensure(row.spec.provider)
        time.sleep(seconds)

    def _settle(self, build: str, *, cancelled: bool = False, seconds: float = 60.0) -> None:
        """While the engine is ours, see the build's VM gone before going on: else nobody would.
        A held VM stays, and so does one whose build goes on, unless it was `cancelled`."""
        end = time.monotonic() + seconds
        while self._help.own and time.monotonic() < end:
            row = self.app.ledger.builds.get(build)
            if row.state is BuildState.HELD or not (cancelled or row.finished):
                return
            if row.finished and not self.app.ledger.instances.list(build=build, active=True):
                return
            time.sleep(FOLLOW_INTERVAL)


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


def _log_image(progress: Progress) -> None:
    if progress.fraction == 1.0:
        log.info("VM image: %s took %.0f s", progress.stage, progress.seconds)
