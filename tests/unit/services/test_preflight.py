"""What is refused before a build is submitted, because its provider or image cannot do it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.ledger_builds import spec
from vmrunner import images
from vmrunner.errors import BadOrder, ConfigError, NoCapacity, Uncertain
from vmrunner.images import LocalImage, NotMade
from vmrunner.model import Finding, Level, Network, Spec
from vmrunner.services import preflight


class Provider:
    """A provider that answers what a test puts into it."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.trouble: Exception | None = None
        self.missing: list[Finding] = []
        self.broken: list[Finding] = []
        self.asked: list[Spec] = []

    def offers(self, wish: Spec) -> Sequence[Any]:
        self.asked.append(wish)
        if self.error is not None:
            raise self.error
        return ()

    def unguarded(self) -> Sequence[Finding]:
        if self.trouble is not None:
            raise self.trouble
        return self.missing

    def check(self) -> Sequence[Finding]:
        return self.broken


@pytest.fixture
def provider() -> Provider:
    return Provider()


def app(tmp_path: Path, provider: Provider, kind: str, **more: Any) -> Any:
    """As much of an app as is asked here."""
    said = SimpleNamespace(kind=kind, image="default", accel="auto", disk=None)
    return SimpleNamespace(
        settings=SimpleNamespace(providers={"local": said}),
        ledger=SimpleNamespace(instances=SimpleNamespace(launched=lambda _: False)),
        paths=SimpleNamespace(cache=tmp_path, state=lambda _: tmp_path),
        provider=lambda _: provider,
        one_host=True,
        served=lambda _: False,
        **more,
    )


@pytest.fixture
def cloud(tmp_path: Path, provider: Provider) -> Any:
    return app(tmp_path, provider, "ec2")


@pytest.fixture
def host(tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One of the user's own machines, with an image that is ready."""
    image = LocalImage(
        hash="h" * 64,
        name="default",
        directory=tmp_path,
        cmdline="",
        containers=("debian:trixie",),
        created=0.0,
        size=1,
        virtual_size=1,
        supervisor={"supervisor": "sha"},
        packages=("docker.io",),
    )
    monkeypatch.setattr(images, "resolve", lambda *_: image)
    monkeypatch.setattr(images, "speaks_ours", lambda _: True)
    return app(tmp_path, provider, "qemu")


def test_an_order_that_no_machine_can_meet_is_refused(cloud: Any, provider: Provider) -> None:
    provider.error = BadOrder("cpus: 9999 are too many", hint="fewer")
    with pytest.raises(ConfigError) as refused:
        preflight.check(cloud, spec(cpus=9999))
    assert (str(refused.value.args[0]), refused.value.hint) == ("cpus: 9999 are too many", "fewer")
    assert [wish.cpus for wish in provider.asked] == [9999]


def test_a_cloud_that_is_full_for_now_refuses_nothing(cloud: Any, provider: Provider) -> None:
    provider.error = NoCapacity("full")
    assert preflight.check(cloud, spec()).making is None


def test_the_first_launch_tells_what_guards_are_missing(cloud: Any, provider: Provider) -> None:
    provider.missing = [Finding(check="guard", level=Level.WARNING, message="none", fix="make one")]
    assert preflight.check(cloud, spec()).warnings == ("local: none (make one)",)
    cloud.ledger.instances.launched = lambda _: True
    assert preflight.check(cloud, spec()).warnings == ()


def test_a_guard_that_cannot_be_asked_about_is_a_warning(cloud: Any, provider: Provider) -> None:
    provider.trouble = Uncertain("timeout")
    (told,) = preflight.check(cloud, spec()).warnings
    assert "timeout" in told


def test_a_build_for_this_host_is_accepted(host: Any) -> None:
    assert preflight.check(host, spec()) == preflight.PreflightResult()


def test_an_engine_elsewhere_checks_its_own_host(host: Any, provider: Provider) -> None:
    provider.broken = [Finding(check="kvm", level=Level.ERROR, message="no KVM", fix="enable it")]
    host.one_host, host.served = False, lambda _: True
    assert preflight.check(host, spec()) == preflight.PreflightResult()


def test_what_the_host_lacks_is_refused_with_its_fix(host: Any, provider: Provider) -> None:
    provider.broken = [Finding(check="kvm", level=Level.ERROR, message="no KVM", fix="enable it")]
    with pytest.raises(ConfigError, match="no KVM") as refused:
        preflight.check(host, spec())
    assert refused.value.hint == "enable it"


def test_a_build_without_network_needs_no_network_tools(host: Any, provider: Provider) -> None:
    provider.broken = [Finding(check="pasta", level=Level.ERROR, message="no pasta", fix="get it")]
    preflight.check(host, spec(network=Network.NONE))
    with pytest.raises(ConfigError, match="no pasta"):
        preflight.check(host, spec())


def test_without_network_the_container_must_be_in_the_image(host: Any) -> None:
    preflight.check(host, spec(network=Network.NONE, container="debian:trixie"))
    with pytest.raises(ConfigError, match="is not in VM image 'default'"):
        preflight.check(host, spec(network=Network.NONE, container="debian"))


def test_a_runtime_that_the_image_lacks_is_refused(host: Any) -> None:
    with pytest.raises(ConfigError, match="has no runsc"):
        preflight.check(host, spec(runtime="runsc"))


def test_an_image_of_another_version_is_a_warning(
    host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "speaks_ours", lambda _: False)
    (told,) = preflight.check(host, spec()).warnings
    assert "is of another version of vmrunner" in told


def test_a_missing_default_image_is_given_back_to_be_made(
    host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> LocalImage:
        raise NotMade("there is none yet")

    monkeypatch.setattr(images, "resolve", missing)
    making = preflight.check(host, spec()).making
    assert making is not None
    assert (making.recipe.name, making.why) == ("default", "there is none yet")
