"""Caches on their way into the VM, before the steps, and out of it, after success.

Nothing here ends a build otherwise than it would end without caches: what goes wrong becomes an
event. What comes out of the VM is bytes that only another VM will look into.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from vmrunner.errors import Fenced, VmrunnerError
from vmrunner.lib import units
from vmrunner.lib.file_bytes import pieces_of
from vmrunner.model import BuildState, CacheOutcome, CacheRule, EventKind, FoundCache, Reason
from vmrunner.session.job import OTHER, Reporter, SessionJob
from vmrunner.session.ssh import client
from vmrunner.session.ssh.channel_io import PIECE
from vmrunner.session.supervisor_calls import SupervisorCalls

RESTORE: Final = 300.0  # seconds for all caches of a build to get into its VM
SAVE: Final = 300.0  # seconds for all to get out
GUEST: Final = 150.0  # seconds that the VM may take to unpack them, and again to pack them
TICK: Final = 5.0


class _Late(VmrunnerError):
    """The time for caches is over."""


class BuildCaches:
    """The caches of one session's build."""

    def __init__(self, job: SessionJob, reporter: Reporter) -> None:
        self._job = job
        self._reporter = reporter
        self._rules = job.build.spec.caches
        self._sent: dict[int, FoundCache] = {}
        self._packed: dict[int, int] = {}  # what the VM has ready, and its bytes

    @property
    def patience(self) -> float:
        """Seconds that the VM may take for them beside its steps."""
        return 2 * GUEST if self._rules else 0.0

    def order(self) -> list[dict[str, Any]]:
        """Instructions for the VM, one for each cache. One that was found under its very key is not
        packed again."""
        return [
            {
                "path": rule.path,
                "restore": number in self._sent,
                "pack": number not in self._sent or not self._sent[number].exact,
            }
            for number, rule in enumerate(self._rules)
        ]

    # --- in ---

    def send(self, supervisor: SupervisorCalls, pulse: Callable[[], float]) -> None:
        """Bring those that there are into the VM. Raises ConnectionLost, and what `pulse` does."""
        shelf, until = self._job.caches, time.monotonic() + RESTORE
        for number, rule in enumerate(self._rules):
            if shelf is None or number in self._sent:
                continue
            try:
                found = shelf.find(rule, until)
                if found is None:
                    self._tell(rule, CacheOutcome.MISSED)
                elif self._put(supervisor, number, found, _within(until, pulse)):
                    self._sent[number] = found
                else:
                    return  # the steps have started there already
            except (Fenced, client.ConnectionLost):
                raise
            except (VmrunnerError, OSError) as error:
                self._tell(rule, CacheOutcome.NOT_RESTORED, message=str(error))

    def _put(
        self,
        supervisor: SupervisorCalls,
        number: int,
        found: FoundCache,
        pulse: Callable[[], float],
    ) -> bool:
        words = "put_cache", str(number), str(found.path.stat().st_size)
        done = supervisor.ask(*words, stdin=pieces_of(found.path, PIECE), pulse=pulse)
        if done.exit_code == OTHER:
            return False
        if done.exit_code:
            raise VmrunnerError(f"the VM does not take it: {_complaint(done)}")
        return True

    # --- what the VM tells ---

    def heard(self, data: Mapping[str, Any]) -> None:
        """Take note of what the VM did with one of them."""
        number, error = int(data["cache"]), str(data["error"])
        rule, found = self._rules[number], self._sent.get(number)
        if data["packed"]:
            if found is not None and found.exact:
                return  # it was not to pack that
            if error:
                self._tell(rule, CacheOutcome.NOT_SAVED, message=f"in the VM: {error}")
            else:
                self._packed[number] = int(data["bytes"])
            return
        key = found.key if found else rule.key
        if error:
            self._tell(rule, CacheOutcome.NOT_RESTORED, key=key, message=f"in the VM: {error}")
        else:
            size = found.size if found else int(data["bytes"])
            self._tell(rule, CacheOutcome.RESTORED, key=key, size=size)

    # --- out ---

    def bring(self, supervisor: SupervisorCalls, stopped: Callable[[], Reason | None]) -> None:
        """Bring what the VM packed. It is stored once the build has succeeded."""
        shelf, until = self._job.caches, time.monotonic() + SAVE

        def pulse() -> float:
            if (reason := stopped()) is not None:
                raise _Late(f"the build is to end: {reason.value}")
            return TICK

        if shelf is None or not self._packed:
            return
        self._reporter.state(BuildState.COLLECTING)
        for number in sorted(self._packed):
            try:
                size = min(shelf.most, self._packed[number])
                file = shelf.file(number, size)
                self._get(supervisor, number, file, size, _within(until, pulse))
            except Fenced:
                raise
            except (VmrunnerError, OSError) as error:
                self._tell(self._rules[number], CacheOutcome.NOT_SAVED, message=str(error))
                if isinstance(error, client.ConnectionLost):
                    return

    def _get(
        self,
        supervisor: SupervisorCalls,
        number: int,
        file: Path,
        most: int,
        pulse: Callable[[], float],
    ) -> None:
        partial = file.with_name(f"{file.name}.part")
        try:
            with partial.open("wb") as writing:
                sink = _Bounded(writing, most)
                done = supervisor.ask("get_cache", str(number), on_bytes=sink.take, pulse=pulse)
            if done.exit_code:
                raise VmrunnerError(f"the VM does not give it: {_complaint(done)}")
            if sink.size != self._packed[number]:
                raise VmrunnerError("the VM gave less than it had said")
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)

    def _tell(
        self,
        rule: CacheRule,
        outcome: CacheOutcome,
        *,
        key: str = "",
        size: int | None = None,
        message: str = "",
    ) -> None:
        fields: dict[str, str | int] = {"path": rule.path, "key": key or rule.key}
        if size is not None:
            fields["bytes"] = size
        if message:
            fields["message"] = message[:300]
        self._reporter.event(EventKind.CACHE, outcome=outcome.value, **fields)


class _Bounded:
    """A file that takes no more than so many bytes."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file = file
        self._most = most
        self.size = 0

    def take(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self._most:
            raise VmrunnerError(f"the VM sent more than {units.amount(self._most)}")
        self._file.write(data)


def _within(until: float, pulse: Callable[[], float]) -> Callable[[], float]:
    """A pulse that raises once the time for caches is over."""

    def within() -> float:
        remaining = until - time.monotonic()
        if remaining <= 0:
            raise _Late("it took too long")
        return min(pulse(), remaining)

    return within


def _complaint(done: client.Completed) -> str:
    """The VM's message, in short. An image that knows no caches lists the commands that it has, a
    plain one says nothing."""
    text = done.complaint
    if not done.stderr.strip() or ("put_cache" not in text and "--epoch" in text):
        return "its image is older than caches, or plain: vmrunner image build"
    return text[:200]
