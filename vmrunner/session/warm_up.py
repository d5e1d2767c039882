"""The warm-up of a VM that waits for its build: SSH connected, the supervisor answering, a
container of its pool's shape started."""

from __future__ import annotations

import json
from dataclasses import dataclass

from vmrunner.core.boxes import DOCKER, Box
from vmrunner.errors import ConfigError
from vmrunner.lib.channels import TCP, Channel
from vmrunner.model import Access, Address, PoolKind, PoolSpec, Shape
from vmrunner.session.ssh import client
from vmrunner.session.supervisor_calls import SupervisorCalls

#: Seconds until SSH must have answered, and for the container.
CONNECT: float = 600.0
CONTAINER: float = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmUpJob:
    """A VM that boots for a pool. `epoch`: its own."""

    instance: str
    epoch: int
    address: Address
    channel: Channel = TCP
    box: Box = DOCKER
    access: Access
    spec: PoolSpec


class WarmUp:
    """`run` blocks, in a thread of its own; `stop` may come from any."""

    def __init__(self, job: WarmUpJob) -> None:
        self._job = job
        self._dialer = client.Dialer(job.access, channel=job.channel)

    def run(self) -> client.Connection:
        """Open the connection over which its build will be driven. Raises Unreachable, Aborted,
        ConnectionLost and ConfigError."""
        job = self._job
        connection = self._dialer.connect(job.address, timeout=CONNECT)
        try:
            self._await_container(connection)
            if job.spec.kind is PoolKind.PARKED:
                self._write_out(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _await_container(self, connection: client.Connection) -> None:
        job, spec = self._job, self._job.spec
        shape = Shape(container=spec.container, runtime=spec.runtime, log_bytes=spec.log_bytes)
        ahead = job.box.ahead(shape, spec.network)
        if ahead is None:
            return
        done = SupervisorCalls(connection, job.epoch).ask_next(  # the build's order is the next
            "prestart", stdin=json.dumps(ahead).encode(), pulse=client.within(CONTAINER)
        )
        if done.exit_code:
            raise ConfigError(f"{job.instance} has no container ready: {done.complaint}")

    def _write_out(self, connection: client.Connection) -> None:
        """Have all that it wrote on its disk: a stop may ask its guest nothing."""
        done = connection.run("sync", timeout=CONTAINER)
        if done.exit_code:
            raise ConfigError(f"{self._job.instance} cannot write its disk: {done.complaint}")

    def stop(self) -> None:
        """Let it end at once."""
        self._dialer.abort()
