"""What is refused before a build is submitted, because its provider or image cannot do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.ledger_builds import spec
from vmrunner import images
from vmrunner.config.settings import Settings
from vmrunner.errors import BadOrder, ConfigError, NoCapacity, Uncertain
from vmrunner.images import LocalImage, NotMade
from vmrunner.model import AllowList, BuildSpec, Finding, Level, Network, Spec
from vmrunner.runtime import background
from vmrunner.services import preflight


class Provider:
    """A provider that answers what a test puts into it."""

    name = "local"
    holds_allow_lists = False

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.trouble: Exception | None = None
        self.missing: list[Finding] = []
        self.broken: list[Finding] = []
        self.specs: list[Spec] = []

    def offers(self, wanted: Spec) -> Sequence[Any]:
        self.specs.append(wanted)
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


class Case:
    """As much of a vmrunner as is asked here."""

    def __init__(self, root: Path, provider: Provider, table: Mapping[str, Any]) -> None:
        self.settings = Settings.model_validate({"providers": {"local": table}})
        self.launched = False
        self._root, self._provider = root, provider

    def check(self, wanted: BuildSpec) -> preflight.PreflightResult:
        launched = SimpleNamespace(launched=lambda _: self.launched)
        ledger: Any = SimpleNamespace(instances=launched)
        paths: Any = SimpleNamespace(cache=self._root, state=lambda _: self._root)
        providers: Any = SimpleNamespace(get=lambda _: self._provider)
        return preflight.check(
            wanted, self.settings, paths=paths, ledger=ledger, providers=providers
        )


@pytest.fixture
def cloud(tmp_path: Path, provider: Provider) -> Case:
    return Case(tmp_path, provider, {"kind": "ec2", "region": "eu-west-1"})


@pytest.fixture
def host(tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Case:
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
    monkeypatch.setattr(background, "one_host", lambda _: True)
    return Case(tmp_path, provider, {"kind": "qemu"})


def test_an_order_that_no_machine_can_meet_is_refused(cloud: Case, provider: Provider) -> None:
    provider.error = BadOrder("cpus: 9999 are too many", hint="fewer")
    with pytest.raises(ConfigError) as refused:
        cloud.check(spec(cpus=9999))
    assert (str(refused.value.args[0]), refused.value.hint) == ("cpus: 9999 are too many", "fewer")
    assert [wanted.cpus for wanted in provider.specs] == [9999]


def test_a_cloud_that_is_full_for_now_refuses_nothing(cloud: Case, provider: Provider) -> None:
    provider.error = NoCapacity("full")
    assert cloud.check(spec()).image is None


def test_the_first_launch_tells_what_guards_are_missing(cloud: Case, provider: Provider) -> None:
    provider.missing = [Finding(check="guard", level=Level.WARNING, message="none", fix="make one")]
    assert cloud.check(spec()).warnings == ("local: none (make one)",)
    cloud.launched = True
    assert cloud.check(spec()).warnings == ()


def test_a_guard_that_cannot_be_asked_about_is_a_warning(cloud: Case, provider: Provider) -> None:
    provider.trouble = Uncertain("timeout")
    (warning,) = cloud.check(spec()).warnings
    assert "timeout" in warning


def test_a_build_for_this_host_is_accepted(host: Case) -> None:
    assert host.check(spec()) == preflight.PreflightResult()


def test_an_engine_elsewhere_checks_its_own_host(
    host: Case, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.broken = [Finding(check="kvm", level=Level.ERROR, message="no KVM", fix="enable it")]
    monkeypatch.setattr(background, "one_host", lambda _: False)
    monkeypatch.setattr(background, "served", lambda *_: True)
    assert host.check(spec()) == preflight.PreflightResult()


def test_what_the_host_lacks_is_refused_with_its_fix(host: Case, provider: Provider) -> None:
    provider.broken = [Finding(check="kvm", level=Level.ERROR, message="no KVM", fix="enable it")]
    with pytest.raises(ConfigError, match="no KVM") as refused:
        host.check(spec())
    assert refused.value.hint == "enable it"


def test_a_build_without_network_needs_no_network_tools(host: Case, provider: Provider) -> None:
    provider.broken = [Finding(check="pasta", level=Level.ERROR, message="no pasta", fix="get it")]
    host.check(spec(network=Network.NONE))
    with pytest.raises(ConfigError, match="no pasta"):
        host.check(spec())


def test_without_network_the_container_must_be_in_the_image(host: Case) -> None:
    host.check(spec(network=Network.NONE, container="debian:trixie"))
    with pytest.raises(ConfigError, match="is not in VM image 'default'"):
        host.check(spec(network=Network.NONE, container="debian"))


HUB = AllowList(("registry-1.docker.io", "auth.docker.io"))


def test_an_allow_list_that_nobody_can_hold_is_refused(cloud: Case, provider: Provider) -> None:
    """Before anything is asked of the cloud."""
    with pytest.raises(ConfigError, match="provider local cannot hold an allow-list") as refused:
        cloud.check(spec(network=HUB))
    assert refused.value.hint == "use a qemu provider, or network = open or none"
    assert provider.specs == []


def test_no_image_is_made_for_a_list_that_nobody_holds(
    host: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> LocalImage:
        raise NotMade("there is none yet")

    monkeypatch.setattr(images, "resolve", missing)
    with pytest.raises(ConfigError, match="cannot hold an allow-list"):
        host.check(spec(network=HUB))


def test_with_an_allow_list_its_registry_must_be_on_it(host: Case, provider: Provider) -> None:
    provider.holds_allow_lists = True
    host.check(spec(network=AllowList(("a.example.org",)), container="debian:trixie"))
    for image in ("python:3.13", "docker.io/library/python:3.13", "team/image"):
        host.check(spec(network=HUB, container=image))
    for image, registry in (("ghcr.io/a/b", "ghcr.io"), ("r.example.org:8443/a", "r.example.org")):
        with pytest.raises(ConfigError, match=f"has not its registry {registry}"):
            host.check(spec(network=HUB, container=image))
    host.check(spec(network=AllowList(("*.example.org:8443",)), container="r.example.org:8443/a"))


def test_an_allow_lists_needs_of_the_host_are_its_own(host: Case, provider: Provider) -> None:
    provider.holds_allow_lists = True
    provider.broken = [
        Finding(check="allow-list", level=Level.ERROR, message="no nf_tables", fix="a kernel")
    ]
    host.check(spec())
    with pytest.raises(ConfigError, match="no nf_tables"):
        host.check(spec(network=HUB))


def test_a_runtime_that_the_image_lacks_is_refused(host: Case) -> None:
    with pytest.raises(ConfigError, match="has no runsc"):
        host.check(spec(runtime="runsc"))


def test_an_image_of_another_version_is_a_warning(
    host: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "speaks_ours", lambda _: False)
    (warning,) = host.check(spec()).warnings
    assert "is of another version of vmrunner" in warning


def test_a_missing_default_image_is_given_back_to_be_made(
    host: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> LocalImage:
        raise NotMade("there is none yet")

    monkeypatch.setattr(images, "resolve", missing)
    making = host.check(spec()).image
    assert making is not None
    assert (making.recipe.name, making.why) == ("default", "there is none yet")
