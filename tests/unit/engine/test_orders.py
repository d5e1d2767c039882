"""An order of a former version, as it lies in a ledger: sent again, it is the same VM."""

from __future__ import annotations

from dataclasses import replace

from vmrunner.ledger import rows
from vmrunner.model import Kind, Power, Ref, Resource, tags_of
from vmrunner.providers.qemu import launch_plan

#: Before an order told the limit of its birth.
STORED = (
    b'{"instance":"vm-1","build":"b-1","installation":"i-1","generation":"g-1","role":"build",'
    b'"offer":{"scope":["qemu","host","/state"],"machine_type":"local","place":"host",'
    b'"market":"on-demand","cpus":0,"memory":0,"disk":0,"image":"","usd_hour":0.0},'
    b'"deadline":2000000000.0,"network":"none","tags":{}}\n#cloud-config\n'
)
DIGEST = "108530d8b85f1a1c051145c113e1754c04f34a2b9354f49be371d33288127656"


def test_an_order_of_before_is_the_same_request() -> None:
    order = rows.order_from(STORED)
    assert rows.order_bytes(order) == STORED
    assert launch_plan.digest(order) == DIGEST
    assert not any(key.endswith("max-ttl") for key in tags_of(order))


def test_an_order_keeps_the_limit_of_its_birth() -> None:
    order = replace(rows.order_from(STORED), max_ttl=14400.5)
    assert rows.order_from(rows.order_bytes(order)) == order
    assert launch_plan.digest(order) != DIGEST
    born = Resource(
        ref=Ref(order.offer.scope, Kind.INSTANCE, "i-1"), power=Power.RUNNING, tags=tags_of(order)
    )
    assert (born.max_ttl, born.expires_at) == (14400, order.deadline)
