"""What every box must do, who realises the image of a build's container: Docker in the VM, and a
stand-in for a system that starts the image itself. And what is refused where one cannot keep it."""

from __future__ import annotations

import shlex
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import units
from tests.support.ledger_builds import spec
from tests.support.session_world import World, sshd, world
from vmrunner.core import requirements
from vmrunner.core.boxes import DOCKER, Box
from vmrunner.engine.orders import OrderFactory
from vmrunner.errors import BadOrder
from vmrunner.model import (
    RUNSC,
    ArtifactRule,
    BuildRecord,
    BuildState,
    Level,
    Network,
    PoolSpec,
    Reason,
    Result,
    Spec,
    Trait,
)
from vmrunner.providers import capabilities, registry
from vmrunner.providers.fake import Clock, Cloud, FakeProvider
from vmrunner.providers.port import Driver
from vmrunner.services import doctor
from vmrunner.session import supervisor_calls
from vmrunner.session.warm_up import WarmUp, WarmUpJob

pytestmark = pytest.mark.timeout(120)
__all__ = ["sshd", "world"]

IMAGE = "debian:trixie"


@dataclass
class Boxed:
    """A box, and a guest that has it."""

    box: Box
    world: World

    def run(self, *scripts: str, **options: Any) -> Any:
        return self.world.run(*scripts, box=self.box, container=IMAGE, **options)


@pytest.fixture(params=["docker", "unit"])
def boxed(
    request: pytest.FixtureRequest, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Boxed]:
    if request.param == "docker":
        yield Boxed(DOCKER, world)
    else:
        program = units.supervisor(tmp_path, IMAGE)
        monkeypatch.setattr(supervisor_calls, "SUPERVISOR", str(program))
        yield Boxed(units.UnitBox(), world)


# --- a build, whoever made its container ----------------------------------------------------------


def test_a_build_ends_with_its_log_and_exit_code(boxed: Boxed) -> None:
    end = boxed.run("echo $GREETING", "exit 7", env={"GREETING": "hello"})
    assert (end.result, end.reason, end.exit_code) == (Result.FAILURE, Reason.EXIT_CODE, 7)
    assert boxed.world.log == b"hello\n"


def test_its_source_goes_in_and_its_artifacts_come_out(boxed: Boxed, tmp_path: Path) -> None:
    (tmp_path / "words").write_text("from here")
    with tarfile.open(tmp_path / "source.tar", "w") as tar:
        tar.add(tmp_path / "words", "words")
    end = boxed.run(
        "tr a-z A-Z <words >shouted",
        source=tmp_path / "source.tar",
        rules=[ArtifactRule(glob="shouted")],
    )
    assert end.result is Result.SUCCESS
    assert (boxed.world.artifacts / "shouted").read_text() == "FROM HERE"


def test_its_secrets_are_masked(boxed: Boxed) -> None:
    assert boxed.run('echo "<$TOKEN>"', secrets={"TOKEN": b"hunter2hunter2"}).exit_code == 0
    assert b"hunter2" not in boxed.world.log
    assert boxed.world.log.startswith(b"<")


def test_a_vm_that_waits_is_made_ready_and_serves(
    boxed: Boxed, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = boxed.world
    if boxed.box is DOCKER:
        monkeypatch.setattr(supervisor_calls, "SOCKET", str(world.guest.run / "socket"))
        world.guest.start_resident()
    job = WarmUpJob(
        instance="vm-1",
        epoch=1,
        address=world.proxy.address,
        box=boxed.box,
        access=world.sshd.access,
        spec=PoolSpec(name="fast", provider="local", container=IMAGE),
    )
    connection = WarmUp(job).run()
    assert len(world.guest.docker.created) == (1 if boxed.box is DOCKER else 0)
    end = boxed.run("echo hello", epoch=2, connection=connection)
    assert (end.result, world.log) == (Result.SUCCESS, b"hello\n")


def test_words_get_into_the_container_as_they_are(boxed: Boxed, tmp_path: Path) -> None:
    """As `vmrunner ssh --container` sends them. This docker runs what it is told to."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ "$1" = exec ] || { echo running; exit; }\nshift 5\n"$@"\n')
    program.chmod(0o755)
    words = boxed.box.inside(["printf", "<%s>", "a  b", "it's $x"], held=False, terminal="")
    line = shlex.join(words).replace("/vmrunner/env", "/dev/null")  # there is none here
    done = subprocess.run(
        ["sh", "-c", line],
        env={"PATH": f"{program.parent}:/usr/bin:/bin"},
        capture_output=True,
        check=False,
    )
    assert done.stdout == b"<a  b><it's $x>", done.stderr


# --- promises -------------------------------------------------------------------------------------

ASKED = {
    Trait.DOCKER: ({"docker": True}, "docker: true"),
    Trait.PRIVILEGED: ({"privileged": True}, "privileged: true"),
    Trait.GVISOR: ({"runtime": RUNSC}, "container-runtime: runsc"),
    Trait.NO_NETWORK: ({"network": Network.NONE}, "network: none"),
    Trait.VM_IMAGE: ({"image": "mine"}, "image: mine"),
    Trait.BOOTSTRAP: ({"bootstrap": True}, "bootstrap: true"),
    Trait.PRIVATE_PULL: ({"registry_secret": "LOGIN"}, "registry-secret: set"),
}


@pytest.fixture
def cloud() -> Cloud:
    return Cloud(Clock())


def machine(trait: Trait) -> Spec:
    return requirements.machine(spec(**ASKED[trait][0]))


@pytest.mark.parametrize("trait", Trait)
def test_what_a_unit_cannot_keep_is_refused(
    cloud: Cloud, trait: Trait, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With field, value and fix, and before the cloud is asked."""
    provider = units.UnitProvider("far", cloud)
    specs: list[Spec] = []
    monkeypatch.setattr(provider, "offers", specs.append)
    with pytest.raises(BadOrder) as refused:
        capabilities.offers(provider, machine(trait))
    assert str(refused.value).startswith(f"{ASKED[trait][1]}: provider far starts the container")
    assert "use a provider whose VMs have Docker" in refused.value.hint
    assert not specs


@pytest.mark.parametrize("trait", Trait)
def test_what_a_box_keeps_is_offered(cloud: Cloud, trait: Trait) -> None:
    for provider in (units.UnitProvider("far", cloud, trait), FakeProvider("near", cloud)):
        assert capabilities.offers(provider, machine(trait))


def test_all_that_is_in_the_way_is_told_at_once(cloud: Cloud) -> None:
    wanted = requirements.machine(spec(docker=True, network=Network.NONE))
    with pytest.raises(BadOrder, match=r"^docker: true, network: none: provider far "):
        capabilities.offers(units.UnitProvider("far", cloud), wanted)


def test_an_order_without_a_network_is_refused_too(cloud: Cloud) -> None:
    """One whose row was written when its provider started VMs."""
    provider = units.UnitProvider("far", cloud)
    with pytest.raises(BadOrder, match="network: none: provider far"):
        capabilities.check(provider, Network.NONE)
    capabilities.check(provider, Network.OPEN)


def test_a_pools_vms_are_asked_for_as_builds_are(cloud: Cloud) -> None:
    pool = PoolSpec(name="p", provider="far", container=IMAGE, runtime=RUNSC)
    with pytest.raises(BadOrder, match="container-runtime: runsc: provider far"):
        capabilities.offers(units.UnitProvider("far", cloud), pool.machine)


def test_a_units_order_names_its_image_and_keys(cloud: Cloud) -> None:
    provider = units.UnitProvider("far", cloud)
    build_spec = spec(container="alpine:3")
    now = time.time()
    build = BuildRecord(
        id="b-1", spec=build_spec, state=BuildState.QUEUED, created_at=now, state_since=0
    )
    rows = SimpleNamespace(container=lambda _: None)
    ledger: Any = SimpleNamespace(installation="i", generation="g", instances=rows)
    offer = capabilities.offers(provider, requirements.machine(build_spec))[0]
    order, access = OrderFactory(ledger, log_bytes=1 << 20)(build, "vm-1", offer, now + 600)
    assert order.shape is not None
    assert order.shape.container == "alpine:3"
    assert order.identity is not None
    assert order.identity.host_public == access.host_public


def test_doctor_tells_what_a_unit_refuses(cloud: Cloud) -> None:
    kept = units.UnitProvider("far", cloud, Trait.NO_NETWORK)
    providers: Any = SimpleNamespace(get={"far": kept, "near": FakeProvider("n", cloud)}.get)
    (box_finding,) = [
        finding for finding in doctor._provider(providers, "far") if finding.check == "far: box"
    ]
    assert box_finding.level is Level.OK
    assert "docker: true, privileged: true" in box_finding.message
    assert "network: none" not in box_finding.message
    assert not [
        finding for finding in doctor._provider(providers, "near") if "box" in finding.check
    ]


def test_a_box_is_docker_unless_a_driver_starts_units(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No provider is opened to know that."""

    def opened() -> Any:
        raise AssertionError("it was opened")

    kinds = [kind for kind, driver in registry.drivers().items() if not driver.units]
    assert {registry.box(kind, opened) for kind in (*kinds, "gone")} == {DOCKER}
    far = Driver(kind="far", settings="", open=lambda _: provider, units=True)
    monkeypatch.setattr(registry, "drivers", lambda: {"far": far})
    provider = units.UnitProvider("far", cloud)
    assert registry.box("far", lambda: registry.load("far", "x")) is provider.box
