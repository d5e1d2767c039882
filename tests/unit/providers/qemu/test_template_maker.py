"""What a maker of templates leaves behind, however it ends. The provider is a stand-in."""

from __future__ import annotations

import errno
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.unit.providers.qemu.test_templates import IMAGE, KEY, ORDER
from vmrunner.errors import NoCapacity, ProviderError
from vmrunner.lib import process
from vmrunner.model import Network, Role
from vmrunner.providers.qemu import launch_plan, state_dir, sweep, templates
from vmrunner.providers.qemu.launch_plan import HostPrograms, VmPlan
from vmrunner.providers.qemu.options import QemuOptions
from vmrunner.providers.qemu.provider import QemuProvider
from vmrunner.providers.qemu.state_dir import DirName, InstanceDir, StateDir
from vmrunner.providers.qemu.template_maker import QemuTemplateMaker

OPEN = replace(ORDER, network=Network.OPEN)


class Provider:
    """One whose VMs are empty directories without a keeper."""

    scope = ORDER.offer.scope

    def __init__(self, root: Path) -> None:
        self.state = StateDir(root / "state")
        self.state.prepare()
        self.options = QemuOptions(
            name="local", state_dir=self.state.path, cache_dir=root, installation="i-1"
        )
        self.home = InstanceDir(self.state.instances / str(DirName("i-1", "vm-1", 10**9)))
        self.trouble: BaseException | None = None
        self.death: dict[str, Any] | None = None
        self.placed: list[VmPlan] = []

    def plan(self, _: object) -> VmPlan:
        programs = HostPrograms(qemu="", qemu_img="", nft="", pasta="pasta")
        return VmPlan(order=OPEN, image=IMAGE, programs=programs, accel="tcg")

    def place(self, vm: VmPlan) -> InstanceDir:
        self.placed.append(vm)
        self.home.path.mkdir()
        return self.home

    def start(self, home: InstanceDir) -> None:
        if self.trouble is not None:
            raise self.trouble
        if self.death is not None:
            self.state.record_death(home, self.death)

    @property
    def verified(self) -> Path:
        return self.options.cache_dir / "notes.json"


@pytest.fixture
def provider(tmp_path: Path) -> Provider:
    tmp_path.chmod(0o700)
    return Provider(tmp_path)


@pytest.fixture
def maker(provider: Provider) -> QemuTemplateMaker:
    return QemuTemplateMaker(cast(QemuProvider, provider))


def freeze(maker: QemuTemplateMaker) -> None:
    with maker.begin(KEY) as template:
        maker.boot(ORDER, template)
        maker.await_frozen(ORDER)


@pytest.mark.parametrize("trouble", [ProviderError("no"), KeyboardInterrupt()])
def test_what_is_not_frozen_leaves_no_template(
    provider: Provider, maker: QemuTemplateMaker, trouble: BaseException
) -> None:
    provider.trouble = trouble
    with pytest.raises(type(trouble)):
        freeze(maker)
    assert templates.templates(provider.options.cache_dir) == []


def test_a_full_disk_says_that_no_vm_was_born(
    provider: Provider, maker: QemuTemplateMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(provider, "place", place)
    with pytest.raises(NoCapacity, match="the disk is full"):
        freeze(maker)


@pytest.mark.timeout(10)
def test_a_killed_keeper_is_not_awaited(provider: Provider, maker: QemuTemplateMaker) -> None:
    with pytest.raises(ProviderError, match="keeper was killed"):
        freeze(maker)


def test_a_miss_is_answered_by_one_try(provider: Provider, maker: QemuTemplateMaker) -> None:
    """`serve` would boot a VM a minute, for hours, where none settles."""
    cache = provider.options.cache_dir
    (cache / "images" / ORDER.offer.image).mkdir(parents=True)
    templates.note_wanted(cache, KEY, ORDER)
    assert templates.wanted(cache, now=0.0)
    provider.death = {"cause": "crash", "detail": "QEMU ended with 1"}
    with pytest.raises(ProviderError, match="QEMU ended"):
        freeze(maker)
    assert templates.wanted(cache, now=0.0) == []


def test_neither_a_template_nor_its_first_clone_reaches_anything(
    provider: Provider, maker: QemuTemplateMaker, tmp_path: Path
) -> None:
    with pytest.raises(ProviderError):
        freeze(maker)
    provider.home.path.rmdir()
    maker.clone(OPEN, templates.Template(tmp_path))
    for vm in provider.placed:
        made = launch_plan.make(
            vm, directory=tmp_path, resolver="9.9.9.9", hide=[], mark="", now=0.0
        )
        assert (made["pasta"], made["resolver"], made["tun"]) == (None, None, False)


def test_a_template_without_room_is_not_made(provider: Provider, maker: QemuTemplateMaker) -> None:
    provider.options = replace(provider.options, templates_max_bytes=4096)
    made = templates.begin(provider.options.cache_dir)
    for name in templates.FILES:
        (made / name).write_bytes(bytes(4096))
    with pytest.raises(ProviderError, match="templates_max_bytes"):
        maker.publish(templates.Template(made), KEY, ORDER)
    assert templates.templates(provider.options.cache_dir) == []


def test_a_vm_whose_maker_is_gone_has_no_time_left(provider: Provider) -> None:
    """A sweep shows its deadline while that lives, and never one later than its own."""
    young, late = (
        InstanceDir(provider.state.instances / str(DirName("i-1", name, deadline)))
        for name, deadline in (("vm-1", 4 * 10**9), ("vm-2", 10**9))
    )

    def expires() -> list[float]:
        found = sweep.resources(provider.state, "no-mark", provider.scope)
        return sorted(seen.expires_at or 0.0 for seen in found)

    with subprocess.Popen(["sleep", "60"]) as maker:
        plan = {"created": time.time(), "maker": asdict(process.of(maker.pid))}
        for home in (young, late):
            home.path.mkdir()
            state_dir.write_json(home.path / state_dir.PLAN, plan)
        assert expires() == [1e9, 4e9]
        maker.kill()
    past, now = expires()
    assert past == 1e9, "the audit tells a survivor by it"
    assert time.time() - 5 < now <= time.time()


@pytest.mark.parametrize("role", Role)
def test_only_an_images_vm_depends_on_its_maker(role: Role) -> None:
    programs = HostPrograms(qemu="", qemu_img="", nft="", pasta=None)
    order = replace(ORDER, role=role)
    vm = VmPlan(order=order, image=IMAGE, programs=programs, accel="tcg")
    made = launch_plan.make(vm, directory=Path("/"), resolver="", hide=[], mark="", now=0.0)
    assert (made["maker"] is not None) == (role is Role.IMAGE)
