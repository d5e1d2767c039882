"""VMs that wait in a pool, for tests of the ledger and the rules."""

from __future__ import annotations

from typing import Any

from tests.support.ledger_builds import ACCESS, OFFER, orders, ref
from vmrunner.core.pools import shape_of
from vmrunner.ledger import LaunchRequest, Ledger
from vmrunner.ledger.pool_vms import lease
from vmrunner.model import Instance, InstanceState, PoolSpec, Role

POOL = PoolSpec(name="fast", provider="local", container="debian:trixie", size=2, ttl=100.0)


def instance(**changes: Any) -> Instance:
    """A VM that waits since 100, of `POOL`."""
    values: dict[str, Any] = {
        "id": "vm-1", "build": None, "attempt": 0, "provider": "local", "offer": OFFER,
        "role": Role.POOL, "state": InstanceState.READY, "created_at": 100.0, "state_since": 100.0,
        "deadline": 10_000.0, "epoch": 1, "owner": "e-1", "pool": "fast", "shape": shape_of(POOL),
    }  # fmt: skip
    return Instance(**values | changes)


def waiting(ledger: Ledger, name: str = "vm-1", *, now: float = 100.0) -> Instance:
    """A VM in the ledger that waits; `e-1` holds its pool's lease."""
    ledger.pools.declare({"fast": POOL}, "e-1", now)
    assert ledger.engines.acquire(lease("fast"), "e-1", now + 30)
    new = instance(id=name, state=InstanceState.REQUESTED, created_at=now)
    order, _ = orders(ledger).for_pool(POOL, name, OFFER, new.deadline)
    request = LaunchRequest(build_id=None, seen_epoch=0, instance=new, order=order, access=ACCESS)
    ledger.instances.start([request], until=now + 30)
    ledger.instances.record([(name, 1, ref("i-" + name))], now)
    assert ledger.pools.ready(name, epoch=1, now=now)
    return ledger.instances.get(name)
