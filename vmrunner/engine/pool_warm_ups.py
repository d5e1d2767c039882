"""Warm-ups of VMs that wait in pools, and the connections that they leave open for the builds."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from vmrunner.engine.context import EngineContext, log
from vmrunner.engine.sessions import Spawn
from vmrunner.model import Instance, InstanceState, PoolSpec

if TYPE_CHECKING:
    from vmrunner.session.warm_up import WarmUpJob

_WARMING = (InstanceState.BOOTING, InstanceState.READY)


class RunsWarmUp(Protocol):
    """A warm-up, as `vmrunner.session.warm_up.WarmUp` is one to an engine."""

    def run(self) -> Any:
        """Open a connection to a VM once it is ready; blocks until then."""

    def stop(self) -> None:
        """End it, from any thread."""


WarmUps = Callable[["WarmUpJob"], RunsWarmUp]


@dataclass(frozen=True, slots=True)
class WarmedVm:
    """A warm-up's last word: an open connection, or why there is none."""

    instance: Instance
    connection: Any = None
    error: str = ""


class _WarmUp:
    """A warm-up that is made in its own thread: the way to its VM may take a call to a cloud."""

    def __init__(self, make: Callable[[], RunsWarmUp]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: RunsWarmUp | None = None
        self._stopped = False

    def run(self) -> Any:
        made = self._make()
        with self._lock:
            self._made, stopped = made, self._stopped
        if stopped:
            made.stop()
        return made.run()

    def stop(self) -> None:
        with self._lock:
            self._stopped, made = True, self._made
        if made is not None:
            made.stop()


class PoolWarmUps:
    """The warm-ups of one engine. Used by the tick's thread alone, but for `_run`."""

    def __init__(self, context: EngineContext, make: WarmUps | None, spawn: Spawn) -> None:
        self._context = context
        self._make = make
        self._spawn = spawn
        self._running: dict[str, tuple[int, RunsWarmUp]] = {}  # instance → epoch
        self._finished: queue.SimpleQueue[WarmedVm] = queue.SimpleQueue()
        self._connections: dict[str, tuple[int, Any]] = {}  # instance → epoch, open

    def close(self) -> None:
        """Let go of all of them; the VMs wait for the next engine."""
        for _, warm_up in self._running.values():
            warm_up.stop()
        for _, connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def begin(self, row: Instance, spec: PoolSpec) -> None:
        """Warm a VM up that has an address, unless that goes on."""
        if row.id in self._running and self._running[row.id][0] == row.epoch:
            return
        warm_up = _WarmUp(lambda: self._made(row, spec))
        self._running[row.id] = (row.epoch, warm_up)
        try:
            self._spawn(f"warm up {row.id}", lambda: self._run(row, warm_up))
        except RuntimeError as error:  # no more threads: the next look comes back to it
            log.warning("warm up %s: %s; it is tried again", row.id, error)
            del self._running[row.id]

    def _made(self, row: Instance, spec: PoolSpec) -> RunsWarmUp:
        from vmrunner.session.warm_up import WarmUpJob

        assert row.address is not None
        assert self._make is not None
        job = WarmUpJob(
            instance=row.id,
            epoch=row.epoch,
            address=row.address,
            channel=self._context.channel_to(row),
            box=self._context.box_of(row),
            access=self._context.ledger.instances.access(row.id),
            spec=spec,
        )
        return self._make(job)

    def _run(self, row: Instance, warm_up: RunsWarmUp) -> None:
        try:
            warmed = WarmedVm(row, warm_up.run())
        except Exception as error:  # noqa: BLE001 - whatever it is, the VM does not serve
            warmed = WarmedVm(row, error=str(error) or type(error).__name__)
        self._finished.put(warmed)
        self._context.wake()

    def ended(self) -> list[WarmedVm]:
        """The warm-ups that ended since the last call, without those that were given up."""
        ended = []
        while not self._finished.empty():
            warmed = self._finished.get_nowait()
            if self._running.get(warmed.instance.id, (0, None))[0] == warmed.instance.epoch:
                del self._running[warmed.instance.id]
                ended.append(warmed)
            elif warmed.connection is not None:
                warmed.connection.close()
        return ended

    def keep(self, warmed: WarmedVm) -> None:
        """Keep a connection open, for the VM's build."""
        self._connections[warmed.instance.id] = (warmed.instance.epoch, warmed.connection)

    def is_connected(self, instance: str) -> bool:
        """True if a connection to this VM is open here."""
        return instance in self._connections

    def connection(self, instance: str) -> Any:
        """Hand the connection over that is open to a VM; None: there is none here."""
        return self._connections.pop(instance, (0, None))[1]

    def forget(self, rows: Mapping[str, Instance]) -> None:
        """Close what leads to VMs that do not wait here any more."""
        for name, (epoch, connection) in list(self._connections.items()):
            row = rows.get(name)
            if row is None or row.epoch != epoch or row.state is not InstanceState.READY:
                del self._connections[name]
                connection.close()
        for name, (epoch, warm_up) in list(self._running.items()):
            row = rows.get(name)
            if row is None or row.epoch != epoch or row.state not in _WARMING:
                del self._running[name]
                warm_up.stop()
