"""Sessions for tests: a job, and a reporter that remembers what it was told."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vmrunner.core.boxes import DOCKER, Box
from vmrunner.errors import Fenced
from vmrunner.lib.channels import TCP, Channel
from vmrunner.model import (
    Access,
    Address,
    ArtifactRule,
    BuildRecord,
    BuildSpec,
    BuildState,
    Instance,
    InstanceState,
    Offer,
    Role,
    Scope,
    Step,
)
from vmrunner.session import CacheShelf, End, SessionJob
from vmrunner.session.session import Session
from vmrunner.session.ssh.client import Connection


def make_job(
    address: Address,
    access: Access,
    artifacts: Path,
    *scripts: str,
    epoch: int = 1,
    secrets: Mapping[str, bytes] | None = None,
    source: Path | None = None,
    rules: Sequence[ArtifactRule] = (),
    steps: Sequence[Step] | None = None,
    deadline: float = 600,
    log_bytes: int = 64 << 20,
    boot_seconds: float = 30,
    artifact_bytes: int = 64 << 20,
    build: Mapping[str, Any] | None = None,
    connection: Connection | None = None,
    guest_due: float | None = None,
    shelf: CacheShelf | None = None,
    channel: Channel = TCP,
    box: Box = DOCKER,
    **spec: Any,
) -> SessionJob:
    """A build of shell lines on an instance at an address; `spec` goes to its BuildSpec."""
    now = time.time()
    build_spec = BuildSpec(
        **{
            "steps": tuple(steps or (Step(run=script) for script in scripts)),
            "provider": "local",
            "container": "debian:trixie",
            "timeout": 300.0,
            "ttl": 600.0,
            "secrets": tuple(secrets or ()),
            "artifacts": tuple(rules),
            **spec,
        }
    )
    row = BuildRecord(
        **{
            "id": "b-1",
            "spec": build_spec,
            "state": BuildState.BOOTING,
            "created_at": now,
            "state_since": now,
            "attempt": 1,
            "epoch": epoch,
            **(build or {}),
        }
    )
    instance = Instance(
        id="vm-1",
        build="b-1",
        attempt=1,
        provider="local",
        offer=Offer(scope=Scope("qemu", "here", "there"), machine_type="m", place="p"),
        role=Role.BUILD,
        state=InstanceState.BOOTING,
        created_at=now,
        state_since=now,
        deadline=now + deadline,
        epoch=epoch,
        address=address,
    )
    return SessionJob(
        build=row,
        instance=instance,
        access=access,
        channel=channel,
        box=box,
        secrets=secrets or {},
        source=source,
        artifacts=artifacts,
        log_bytes=log_bytes,
        artifact_bytes=artifact_bytes,
        boot_seconds=boot_seconds,
        connection=connection,
        guest_due=guest_due,
        caches=shelf,
    )


class Recorder:
    """The ledger's part: what a new session of the same attempt finds again."""

    def __init__(self) -> None:
        self.states: list[BuildState] = []
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.log_bytes = bytearray()
        self.offset = 0
        self.batches = 0
        self.starts = 0
        self.busy = False  # before the steps
        self.owner: Recorder.At | None = None

    def at(self) -> At:
        """A reporter of a new owner; those before it are fenced from now on."""
        self.owner = Recorder.At(self)
        return self.owner

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]

    class At:
        def __init__(self, record: Recorder) -> None:
            self._record = record

        def _check(self) -> Recorder:
            if self._record.owner is not self:
                raise Fenced("somebody else owns it")
            return self._record

        def state(self, to: BuildState) -> None:
            record = self._check()
            if to not in record.states:
                record.states.append(to)

        def busy(self) -> None:
            record = self._check()
            assert record.states[-1] is BuildState.PREPARING
            record.busy = True

        def log(self, offset: int, data: bytes) -> None:
            record = self._check()
            assert offset > record.offset
            record.offset = offset
            record.log_bytes += data
            record.batches += 1

        def event(self, kind: str, **data: Any) -> None:
            self._check().events.append((kind, data))

        def stored(self) -> int:
            return self._check().offset

        def steps_started(self) -> None:
            self._check().starts += 1


def stacks() -> str:
    """Where every thread of ours is: what a test that waited in vain should show."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"{names.get(ident)}:\n{''.join(traceback.format_stack(frame, 12))}"
        for ident, frame in sys._current_frames().items()
    )


class Running:
    """A session in a thread."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.verdict: End | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.verdict = self.session.run()
        except Exception as error:  # noqa: BLE001  the test looks at it
            self.error = error

    def wait(self, seconds: float = 60) -> End:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"the session goes on\n{stacks()}"
        if self.error is not None:
            raise self.error
        assert self.verdict is not None
        return self.verdict
