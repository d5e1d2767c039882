"""Builds and instances for the tests of the ledger."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from vmrunner.ledger import LaunchRequest, Ledger
from vmrunner.model import (
    LOCAL_TENANT,
    Access,
    BuildRecord,
    BuildSpec,
    BuildState,
    Identity,
    Instance,
    InstanceState,
    Kind,
    Offer,
    Order,
    PoolSpec,
    Process,
    Reason,
    Ref,
    Result,
    Role,
    Scope,
    Shape,
    Step,
)

SCOPE = Scope("fake", "account", "place")
OFFER = Offer(scope=SCOPE, machine_type="small", place="place", image="1234")
ACCESS = Access(user_private="-----PRIVATE KEY TEXT-----", host_public="ssh-ed25519 AAAA")
SPEC = BuildSpec(
    steps=(Step(run="make test", env={"A": "b"}),),
    provider="local",
    container="debian:trixie",
    timeout=60.0,
    ttl=100.0,
)
PROCESS = Process(machine="m", boot="b", pid_namespace="4026531836", pid=7, started=99)
IDENTITY = Identity(user_key="ssh-ed25519 A", host_key="HOST KEY", host_public="ssh-ed25519 B")
SHAPE = Shape(container="c", runtime="runc", log_bytes=1 << 20)
USER_DATA = b"#cloud-config\nhost key: HOST-PRIVATE-KEY\xff\n\n"


def spec(**changes: Any) -> BuildSpec:
    return replace(SPEC, **changes)


def ref(name: str) -> Ref:
    return Ref(SCOPE, Kind.INSTANCE, name)


def launch(
    ledger: Ledger,
    build: str,
    instance: str,
    *,
    seen_epoch: int = 0,
    owner: str = "e-1",
    now: float = 100.0,
) -> LaunchRequest:
    new = Instance(
        id=instance, build=build, attempt=0, provider="local", offer=OFFER, role=Role.BUILD,
        state=InstanceState.REQUESTED, created_at=now, state_since=now, deadline=now + 100,
        epoch=0, owner=owner,
    )  # fmt: skip
    order = Order(
        instance=instance, build=build, installation=ledger.installation,
        generation=ledger.generation, role=Role.BUILD, offer=OFFER, deadline=now + 100,
        user_data=USER_DATA, tags={"team": "core"},
    )  # fmt: skip
    return LaunchRequest(
        build_id=build, seen_epoch=seen_epoch, instance=new, order=order, access=ACCESS
    )


def template_launch(ledger: Ledger, instance: str, *, owner: str = "e-1") -> LaunchRequest:
    """A VM that a template is made of."""
    wanted = launch(ledger, "", instance, owner=owner)
    return replace(
        wanted,
        build_id=None,
        instance=replace(wanted.instance, build=None, role=Role.IMAGE, epoch=1),
        order=replace(wanted.order, role=Role.IMAGE),
    )


class orders:  # noqa: N801 - called as what it makes
    """What an engine makes its orders by."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def __call__(
        self, build: BuildRecord, instance: str, offer: Offer, deadline: float
    ) -> tuple[Order, Access]:
        return self._order(instance, offer, deadline, build=build.id, role=Role.BUILD), ACCESS

    def for_pool(
        self, spec: PoolSpec, instance: str, offer: Offer, deadline: float
    ) -> tuple[Order, Access]:
        return self._order(instance, offer, deadline, pool=spec.name, role=Role.POOL), ACCESS

    def _order(
        self, instance: str, offer: Offer, deadline: float, *, role: Role, **whose: str
    ) -> Order:
        return Order(
            instance=instance, installation=self.ledger.installation, role=role,
            generation=self.ledger.generation, offer=offer, deadline=deadline,
            user_data=USER_DATA, identity=IDENTITY, shape=SHAPE, **{"build": "", **whose},
        )  # fmt: skip


def submitted(
    ledger: Ledger, build: str = "b-1", *, tenant: str = LOCAL_TENANT, **changes: Any
) -> BuildRecord:
    return ledger.builds.submit(spec(**changes), id=build, now=10.0, tenant=tenant)[0]


def started(
    ledger: Ledger, build: str = "b-1", instance: str = "vm-1", **changes: Any
) -> tuple[BuildRecord, Instance]:
    """A build that is provisioning on an instance, both at epoch 1."""
    submitted(ledger, build, **changes)
    won = ledger.instances.start([launch(ledger, build, instance)], until=200.0)
    assert len(won) == 1
    return won[0]


def running(
    ledger: Ledger, build: str = "b-1", instance: str = "vm-1", **changes: Any
) -> BuildRecord:
    """A build whose steps run, at epoch 1."""
    started(ledger, build, instance, **changes)
    assert ledger.instances.record([(instance, 1, ref("i-" + instance))], 101.0) == {instance}
    move = ledger.builds.advance
    move(build, epoch=1, to=BuildState.CONNECTING, now=102.0)
    move(build, epoch=1, to=BuildState.PREPARING, now=103.0, instance_to=InstanceState.READY)
    return move(build, epoch=1, to=BuildState.RUNNING, now=104.0, instance_to=InstanceState.BUSY)


def finished(ledger: Ledger, build: str, *, chunks: int = 0, at: float = 110.0) -> str:
    """A build that ended at that time, with a log of so many chunks."""
    running(ledger, build, f"vm-{build}")
    for n in range(chunks):
        ledger.logs.append(build, 1, 1, offset=n + 1, data=b"x\n", now=105.0)
    result, reason = Result.SUCCESS, Reason.EXIT_CODE
    ledger.builds.finish(build, epoch=1, now=at, result=result, reason=reason)
    return build


def raced(programs: Iterable[Sequence[str]]) -> list[Any]:
    """Python programs, each with its arguments, that begin together: each says when it is ready,
    waits for a line, and ends with JSON, which is returned."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", *program],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for program in programs
    ]  # fmt: skip
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        return [json.loads(racer.communicate(timeout=240)[0]) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
