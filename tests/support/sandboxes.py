"""A sandbox without a VM: a session over a real sshd keeps it, and clients speak to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support.fake_sessions import Running, make_job
from tests.support.session_world import World
from tests.support.sshd import wait_for
from vmrunner.lib.channels import TCP
from vmrunner.model import BuildRecord, BuildState, CommandOrder, Instance, InstanceState, Reason
from vmrunner.services.sandboxes import SandboxClient
from vmrunner.session import End, supervisor_calls
from vmrunner.session.session import Session


class SandboxWorld:
    """`row` and `instance` are what the ledger says."""

    def __init__(self, world: World, secrets: dict[str, bytes]) -> None:
        self.world = world
        self.secrets_of = secrets
        self.job = make_job(
            world.proxy.address,
            world.sshd.access,
            world.artifacts,
            secrets=secrets,
            sandbox_ttl=600.0,
            log_bytes=1 << 20,
        )
        self.session = Session(self.job, world.record.at())
        self.running = Running(self.session)
        wait_for(lambda: BuildState.RUNNING in world.record.states)
        self.row: BuildRecord = replace(
            self.job.build, state=BuildState.RUNNING, instance="vm-1", hold_until=time.time() + 600
        )
        self.instance: Instance = replace(self.job.instance, state=InstanceState.BUSY)
        self.reads = 0
        self.client = SandboxClient(self, "b-1", lambda _: TCP)  # type: ignore[arg-type]

    # --- as the ledger ---

    @property
    def builds(self) -> SandboxWorld:
        return self

    @property
    def instances(self) -> SandboxWorld:
        return self

    def get(self, name: str) -> BuildRecord | Instance:
        self.reads += 1
        return self.row if name == "b-1" else self.instance

    def secrets(self, _: str) -> dict[str, bytes]:
        return self.secrets_of

    def access(self, _: str) -> Any:
        return self.world.sshd.access

    # --- what a test does ---

    def order(self, *argv: str, **changes: Any) -> CommandOrder:
        name = changes.pop("id", f"c{time.monotonic_ns()}")
        given = {"cwd": str(self.world.guest.work), **changes}
        return CommandOrder(id=name, argv=argv, title=" ".join(argv), **given)

    def run(self, script: str, **changes: Any) -> tuple[bytes, bytes, int]:
        parts: dict[str, bytes] = {"stdout": b"", "stderr": b""}

        def keep(stream: str, data: bytes) -> None:
            parts[stream] += data

        end = self.client.run(self.order("/bin/sh", "-c", script, **changes), keep)
        return parts["stdout"], parts["stderr"], end.exit_code

    def end(self) -> End:
        self.session.stop(Reason.USER)
        return self.running.wait()


@pytest.fixture
def sandbox(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxWorld]:
    monkeypatch.setattr(supervisor_calls, "SOCKET", str(world.guest.run / "socket"))
    world.guest.start_resident()
    found = SandboxWorld(world, {"TOKEN": b"s3cr3t-value"})
    yield found
    found.client.close()
    found.end()
