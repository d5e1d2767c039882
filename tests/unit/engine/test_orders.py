"""What an order says. One of a former version, as it lies in a ledger, is the same VM again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests.support.engine_parts import EngineParts
from tests.support.ledger_builds import SPEC
from vmrunner.config.settings import Settings
from vmrunner.engine.orders import OrderFactory
from vmrunner.ledger import row_codec as codec
from vmrunner.model import (
    BuildRecord,
    BuildSpec,
    BuildState,
    Kind,
    Offer,
    Power,
    Ref,
    Resource,
    Scope,
    tags_of,
)
from vmrunner.providers import registry
from vmrunner.providers.port import Driver
from vmrunner.providers.qemu import launch_plan
from vmrunner.runtime.app import App

#: Before an order told the limit of its birth.
STORED = (
    b'{"instance":"vm-1","build":"b-1","installation":"i-1","generation":"g-1","role":"build",'
    b'"offer":{"scope":["qemu","host","/state"],"machine_type":"local","place":"host",'
    b'"market":"on-demand","cpus":0,"memory":0,"disk":0,"image":"","usd_hour":0.0},'
    b'"deadline":2000000000.0,"network":"none","tags":{}}\n#cloud-config\n'
)
DIGEST = "108530d8b85f1a1c051145c113e1754c04f34a2b9354f49be371d33288127656"


def test_an_order_of_before_is_the_same_request() -> None:
    order = codec.order_from(STORED)
    assert codec.order_bytes(order) == STORED
    assert launch_plan.digest(order) == DIGEST
    assert not any(key.endswith("max-ttl") for key in tags_of(order))


def test_an_order_keeps_the_limit_of_its_birth() -> None:
    order = replace(codec.order_from(STORED), max_ttl=14400.5)
    assert codec.order_from(codec.order_bytes(order)) == order
    assert launch_plan.digest(order) != DIGEST
    resource = Resource(
        ref=Ref(order.offer.scope, Kind.INSTANCE, "i-1"), power=Power.RUNNING, tags=tags_of(order)
    )
    assert (resource.max_ttl, resource.expires_at) == (14400, order.deadline)


def far(delay: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """The offer of a driver with a cloud-init of its own."""
    (tmp_path / "far.yaml").write_text("fqdn: far\n")
    driver = Driver(
        kind="far", settings="", open=print,  # type: ignore[arg-type]
        platform=str(tmp_path / "far"), guest_timer_delay=delay,
    )  # fmt: skip
    monkeypatch.setattr(registry, "drivers", lambda: {"far": driver})
    return Offer(scope=Scope("far", "a", "p"), machine_type="m", place="p")


def queued(spec: BuildSpec) -> BuildRecord:
    return BuildRecord(
        id="b-1", spec=spec, state=BuildState.QUEUED, created_at=0.0, state_since=0.0, attempt=1,
        epoch=1,
    )  # fmt: skip


@pytest.mark.parametrize("delay", [0.0, 300.0])
def test_the_driver_delays_the_guests_timer_past_the_deadline(
    delay: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: EngineParts
) -> None:
    """And which cloud-init its VMs get."""
    offer = far(delay, tmp_path, monkeypatch)
    spec = BuildSpec(steps=(), provider="p", container="c", timeout=60.0, ttl=100.0)
    order, _ = OrderFactory(parts.ledger, log_bytes=1 << 20)(queued(spec), "vm-1", offer, 2e9)
    document = yaml.safe_load(order.user_data)
    assert order.deadline == 2e9
    assert document["bootcmd"][0][-2:] == [str(int(2e9 + delay)), str(int(100 + delay))]
    assert document["fqdn"] == "far"


def test_a_later_attempt_is_ordered_by_the_firsts_digest(parts: EngineParts) -> None:
    _, row = parts.booting()
    factory = OrderFactory(parts.ledger, log_bytes=1 << 20)

    def container(attempt: int) -> str | None:
        build = replace(parts.build(), attempt=attempt)
        order, _ = factory(build, "vm-2", row.offer, 2e9)
        return order.shape and order.shape.container

    assert container(1) == "debian:trixie", "nothing ran"
    parts.ledger.instances.note_containers([(row.id, row.epoch, "debian@sha256:1")], 100.0)
    assert container(1) == "debian@sha256:1"
    assert container(0) == "debian@sha256:1", "a try that was not counted had it, too"


def test_after_a_set_back_orders_have_the_new_generation(
    parts: EngineParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its own VMs would be unknown to the reaper."""
    ledger = parts.ledger
    app = SimpleNamespace(ledger=ledger, settings=Settings())
    orders = App.orders(app)  # type: ignore[arg-type]
    was = ledger.generation
    ledger._witness.note("vm-" + "0" * 26)  # which the database does not know
    ledger.recognise()
    offer = far(0.0, tmp_path, monkeypatch)
    order, _ = orders(queued(SPEC), "vm-1", offer, 2e9)
    assert order.generation == ledger.generation != was
