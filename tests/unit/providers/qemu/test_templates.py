"""Templates in the cache: which is found, which is not used any more, and which goes."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import pytest

from vmrunner.errors import BadOrder
from vmrunner.lib.local_images import LocalImage
from vmrunner.model import AllowList, Identity, Network, Offer, Order, Role, Scope, Shape, Spec
from vmrunner.providers import qemu
from vmrunner.providers.qemu import command_line, image_integrity, launch_plan, state_dir, templates
from vmrunner.providers.qemu.command_line import QemuMachine, QemuStart
from vmrunner.providers.qemu.launch_plan import HostPrograms, VmPlan
from vmrunner.providers.qemu.templates import Template

#: Where Debian has the library of QEMU's user network.
SLIRP = "usr/lib/x86_64-linux-gnu/libslirp.so.0"
KEY = "0123456789abcdef0123"
ORDER = Order(
    instance="vm-1",
    build="b-1",
    installation="i-1",
    generation="g-1",
    role=Role.BUILD,
    offer=Offer(
        scope=Scope("qemu", "here", "there"),
        machine_type="m",
        place="p",
        cpus=1,
        memory=1 << 30,
        disk=9 << 30,
        image="abc",
    ),
    deadline=2e9,
    user_data=b"",
    network=Network.NONE,
    shape=Shape(container="debian:trixie", runtime="runc", log_bytes=1 << 20),
)
IMAGE = LocalImage(
    hash="abc",
    name="default",
    directory=Path("/nowhere"),
    cmdline="",
    containers=("debian:trixie",),
    created=0.0,
    size=0,
    virtual_size=0,
)


def made(cache: Path, key: str = KEY, *, image: str = "default", accel: str = "tcg") -> Template:
    part = templates.begin(cache)
    for name in templates.FILES:
        (part / name).write_bytes(os.urandom(4096))
    (cache / "images" / "abc").mkdir(parents=True, exist_ok=True)
    order = replace(ORDER, offer=replace(ORDER.offer, cpus=ord(key[0])))
    of = {"image": image, "accel": accel}
    return templates.publish(part, key, order, cache / "notes.json", of=of)


def find(cache: Path, key: str = KEY) -> Template | None:
    return templates.find(cache, key, cache / "notes.json")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def test_a_published_template_is_found(cache: Path) -> None:
    assert find(cache) is None
    template = made(cache)
    assert find(cache) == template
    assert templates.templates(cache) == [template]
    assert template.ram.stat().st_mode & 0o777 == 0o644
    assert template.directory.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", templates.FILES)
def test_a_changed_template_is_not_used(cache: Path, name: str) -> None:
    template = made(cache)
    data = bytearray((template.directory / name).read_bytes())
    data[7] ^= 1
    (template.directory / name).write_bytes(data)
    assert find(cache) is None


def test_a_half_made_template_is_none(cache: Path) -> None:
    template = made(cache)
    (template.directory / templates.MANIFEST).unlink()
    assert find(cache) is None
    assert templates.templates(cache) == []


def test_a_template_that_others_may_write_is_refused(cache: Path) -> None:
    template = made(cache)
    cache.chmod(0o755)
    template.directory.parent.chmod(0o777)
    with pytest.raises(BadOrder, match="others may write"):
        find(cache)


def test_a_template_made_again_replaces_the_former(cache: Path) -> None:
    first = made(cache).ram.read_bytes()
    assert made(cache).ram.read_bytes() != first
    assert find(cache) is not None


def test_a_change_of_what_the_key_covers_replaces_a_template(cache: Path) -> None:
    former, other, new = made(cache, "a" * 20), made(cache, "b" * 20), made(cache, "a" * 19 + "b")
    assert {template.key for template in templates.templates(cache)} == {other.key, new.key}
    assert not former.directory.exists()


@pytest.mark.parametrize("other", [{"image": "mine"}, {"accel": "kvm"}])
def test_a_template_of_another_image_or_provider_replaces_none(
    cache: Path, other: dict[str, str]
) -> None:
    """Builds of both are started in turn."""
    both = {made(cache, "a" * 20).key, made(cache, "a" * 19 + "b", **other).key}
    assert {template.key for template in templates.templates(cache)} == both


def test_a_template_goes_with_its_image(cache: Path) -> None:
    template = made(cache)
    (cache / "images" / "abc").rmdir()
    assert templates.trim(cache, 1 << 40, now=0.0, half_made=60) == [template]


def test_the_cap_removes_what_was_used_longest_ago(cache: Path) -> None:
    old, new = made(cache, "a" * 20), made(cache, "b" * 20)
    os.utime(old.directory, (1, 1))
    assert templates.trim(cache, new.size, now=1e9, half_made=60) == [old]
    assert templates.templates(cache) == [new]


def test_what_makers_left_goes_after_a_while(cache: Path) -> None:
    unfinished = templates.begin(cache)
    created_at = unfinished.stat().st_mtime
    templates.trim(cache, 1 << 40, now=created_at + 59, half_made=60)
    assert unfinished.exists()
    templates.trim(cache, 1 << 40, now=created_at + 61, half_made=60)
    assert not unfinished.exists()


def test_what_another_process_removes_meanwhile_is_no_error(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`image gc`, `serve` at night and makers are at it at once."""
    template = made(cache)
    templates.note_wanted(cache, "b" * 20, ORDER)
    seen = list(templates._entries(cache))
    monkeypatch.setattr(templates, "_entries", lambda _: iter(seen))
    shutil.rmtree(template.directory.parent)
    assert templates.templates(cache) == []
    assert templates.wanted(cache, now=0.0) == []
    assert templates.trim(cache, 0, now=1e12, half_made=60) == []
    templates.remove(template)
    assert template.size == 0


def test_a_template_that_goes_before_its_clone_starts_refuses_nobody(tmp_path: Path) -> None:
    """The keeper finds it gone, and boots."""
    programs = HostPrograms(qemu="", qemu_img="/usr/bin/qemu-img", nft="", pasta=None)
    gone = Template(tmp_path / "templates" / KEY)
    vm = VmPlan(order=ORDER, image=IMAGE, programs=programs, accel="tcg", template=gone)
    launch_plan.furnish(tmp_path, vm)
    assert (tmp_path / state_dir.OVERLAY).exists()


def test_small_files_go_after_a_while_too(cache: Path) -> None:
    made(cache)
    names = {f"{templates.NEW}{KEY}.wanted.7", f"{KEY}{templates.LOCK}", "c.wanted"}
    for name in names:
        (cache / "templates" / name).touch()

    def names_now() -> set[str]:
        return {entry.name for entry in (cache / "templates").iterdir()}

    now = cache.stat().st_mtime
    templates.trim(cache, 1 << 40, now=now, half_made=60)
    assert names < names_now()
    templates.trim(cache, 1 << 40, now=now + 86_400, half_made=60)
    assert names_now() == {KEY}


def test_a_miss_is_noted_until_its_template_is_there(cache: Path) -> None:
    now = cache.stat().st_mtime
    (cache / "images" / "abc").mkdir(parents=True)
    templates.note_wanted(cache, KEY, ORDER)
    spec = Spec(cpus=1, memory=1 << 30, disk=9 << 30, image="abc", network=Network.NONE)
    assert templates.wanted(cache, now=now) == [(spec, ORDER.shape)]
    made(cache)
    assert templates.wanted(cache, now=now) == []
    templates.note_wanted(cache, "c" * 20, ORDER)
    assert templates.wanted(cache, now=now + 86_400) == []


def test_a_template_of_elsewhere_is_told_of_once(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a cache that was copied from another machine: builds booted without a word."""
    provider = qemu.open("local", state_dir=cache / "s", cache_dir=cache, installation="i")
    identity = Identity(user_key="u", host_key="h", host_public="p")
    order = replace(ORDER, identity=identity, offer=replace(ORDER.offer, cpus=ord(KEY[0])))
    programs = HostPrograms(qemu="/bin/sh", qemu_img="", nft="", pasta=None)
    plan = VmPlan(order=order, image=replace(IMAGE, channel=True), programs=programs, accel="tcg")
    assert provider._templated(plan).template is None
    assert caplog.messages == [], "there is none at all"
    (cache / "templates" / f"{plan.template_key()}.wanted").unlink()
    made(cache)
    for _ in range(2):
        assert provider._templated(plan).template is None
    (message,) = caplog.messages
    assert message.startswith(
        f"local: template {KEY} does not fit: its image, QEMU or processor is"
    )


def test_a_miss_that_nobody_can_answer_is_forgotten(cache: Path) -> None:
    gone = replace(ORDER, offer=replace(ORDER.offer, image="gone"))
    (cache / "images" / "abc").mkdir(parents=True)
    for key, order in (("a" * 20, ORDER), ("b" * 20, gone), ("c" * 20, ORDER)):
        templates.note_wanted(cache, key, order)
    former = {"spec": {"image": "abc", "network": "none", "former": 1}, "shape": {}}
    (cache / "templates" / f"{'c' * 20}.wanted").write_text(json.dumps(former))
    found = [spec.image for spec, _ in templates.wanted(cache, now=0.0)]
    assert found == ["abc"]
    assert {entry.stem for entry in (cache / "templates").iterdir()} == {"a" * 20}


def test_the_key_covers_what_a_clone_must_share(tmp_path: Path) -> None:
    program = tmp_path / "qemu"
    program.write_text("one build")
    words = [str(program), "-smp", "1"]

    def key(order: Order = ORDER, image: LocalImage = IMAGE, words: list[str] = words) -> str:
        return templates.key(words, order, image, "tcg")

    assert ORDER.shape is not None
    before = key()
    others = [
        key(words=[*words, "-m", "1G"]),
        key(image=replace(IMAGE, hash="def")),
        key(image=replace(IMAGE, sha256={"disk.qcow2": "built again"})),
        key(replace(ORDER, network=Network.OPEN)),
        key(replace(ORDER, offer=replace(ORDER.offer, disk=10 << 30))),
        key(replace(ORDER, shape=replace(ORDER.shape, log_bytes=2 << 20))),
        key(replace(ORDER, shape=replace(ORDER.shape, container="x"))),
        key(replace(ORDER, shape=replace(ORDER.shape, runtime="runsc"))),
    ]
    program.write_text("another build")
    others.append(key())
    assert before not in others
    assert len(set(others)) == len(others)


def test_an_allow_list_starts_from_the_template_of_open(tmp_path: Path) -> None:
    """It is held from outside: the template, and the clone, know nothing of it."""
    program = tmp_path / "qemu"
    program.touch()
    keys = set()
    for network in (Network.OPEN, AllowList(("a.example.org",)), AllowList(("b.example.org",))):
        order = replace(ORDER, network=network)
        keys.add(templates.key([str(program)], order, IMAGE, "tcg"))
        assert templates.purpose(order)["spec"]["network"] == "open"
    assert len(keys) == 1


def test_the_key_says_nothing_of_the_build(tmp_path: Path) -> None:
    program = tmp_path / "qemu"
    program.touch()
    other = replace(ORDER, instance="vm-2", build="b-2", deadline=3e9, user_data=b"x")
    words = [str(program)]
    assert templates.key(words, ORDER, IMAGE, "tcg") == templates.key(words, other, IMAGE, "tcg")


def test_a_manifest_that_is_cut_is_no_template(cache: Path) -> None:
    template = made(cache)
    (template.directory / templates.MANIFEST).write_text(json.dumps({"sha256": {}}))
    assert find(cache) is None


def generation(words: list[str]) -> str:
    """What QEMU with these devices tells a guest's kernel that it is."""
    bare = ["-nodefaults", "-display", "none", "-machine", "q35", "-accel", "tcg", "-S"]
    commands = [
        {"execute": name} for name in ("qmp_capabilities", "query-vm-generation-id", "quit")
    ]
    done = subprocess.run(
        ["qemu-system-x86_64", *bare, *words, "-qmp", "stdio"],
        input="\n".join(map(json.dumps, commands)), capture_output=True, text=True, check=True,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    (found,) = [answer["return"]["guid"] for answer in answers if answer.get("return")]
    return str(found)


@pytest.mark.parametrize("start", QemuStart)
def test_each_clones_kernel_hears_that_it_is_another_vm(start: QemuStart) -> None:
    """By a device, at whatever start: it makes its random numbers anew, before anything of ours
    runs in it. That a kernel does is seen in tests/vm/test_templates.py."""
    machine = QemuMachine(
        qemu="qemu", guest="g", accel="tcg", cpus=1, memory=1 << 30, cmdline="", restrict=True,
        channel=True, start=start,
    )  # fmt: skip
    words = command_line.command(machine)
    devices = [["-device", word] for word in words if word.startswith("vmgenid")]
    (device,) = devices
    assert generation(device) != generation(device)


def test_an_emulated_kernel_alone_goes_without_mitigations() -> None:
    emulated = command_line.kernel_words("tcg", "root=/dev/vda", "", "panic=-1")
    assert emulated == "root=/dev/vda panic=-1 mitigations=off"
    assert command_line.kernel_words("kvm", "root=/dev/vda") == "root=/dev/vda"


def test_a_template_that_was_cut_is_known_unread(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = made(cache)
    os.truncate(template.state, 4000)
    monkeypatch.setattr(image_integrity, "first_difference", None)
    assert templates.find(cache, KEY, cache / "verified.json") is None


@pytest.mark.parametrize(
    "changes", [{"container": "python:3.13"}, {"docker": True}, {"privileged": True}]
)
@pytest.mark.parametrize("role", [Role.BUILD, Role.POOL])
def test_another_container_than_waits_is_made_in_a_clone(
    role: Role, changes: dict[str, Any]
) -> None:
    """A pool's would wait for its build, which no other container can."""
    identity = Identity(user_key="k", host_key="h", host_public="p")
    order = replace(ORDER, role=role, identity=identity)
    assert order.shape is not None
    other = replace(order, shape=replace(order.shape, **changes))
    programs = HostPrograms(qemu="qemu", qemu_img="", nft="", pasta=None)
    image = replace(IMAGE, channel=True)
    plans = [VmPlan(order=o, image=image, programs=programs, accel="tcg") for o in (order, other)]
    expected = order if role is Role.BUILD else None
    assert [plan.template_order() for plan in plans] == [order, expected]


def test_a_build_with_docker_has_no_container_made_ahead() -> None:
    """Neither where its VM is booted."""
    assert ORDER.shape is not None
    programs = HostPrograms(qemu="qemu", qemu_img="", nft="", pasta=None)
    wanting = replace(ORDER, shape=replace(ORDER.shape, docker=True))
    plans = [VmPlan(order=o, image=IMAGE, programs=programs, accel="") for o in (ORDER, wanting)]
    assert [launch_plan._shape(plan) is None for plan in plans] == [False, True]


CPU: Final = {
    "vendor_id": "GenuineIntel",
    "model name": "Xeon",
    "microcode": "0x1",
    "cpu MHz": "2100.000",
    "flags": "fpu hypervisor",
}


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"model name": "EPYC"}, {"tcg"}),
        ({"cpu MHz": "2600.000"}, {"tcg"}),
        ({"microcode": "0x2"}, {"kvm"}),
        ({"vendor_id": "AuthenticAMD"}, {"kvm", "tcg"}),
        ({"flags": "fpu hypervisor avx2"}, {"kvm"}),
        ({"release": "6.13"}, {"kvm"}),
    ],
)
def test_the_key_covers_the_hosts_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], counts: set[str]
) -> None:
    """Under KVM it is the guest's. An emulated guest has its counter of ticks, and knows its pace
    from the template's boot: in a cache that came from another machine its clock went wrong."""
    monkeypatch.setattr(templates, "CPUINFO", tmp_path / "cpuinfo")

    def keys(cpu: dict[str, str]) -> dict[str, str]:
        monkeypatch.setattr(platform, "release", lambda: cpu.get("release", "6.12"))
        lines = "".join(f"{name}\t: {value}\n" for name, value in cpu.items())
        (tmp_path / "cpuinfo").write_text(f"{lines}\n{lines}")
        return {a: templates.key(["/bin/sh"], ORDER, IMAGE, a) for a in ("kvm", "tcg")}

    before, after = keys(CPU), keys(CPU | changes)
    assert {accel for accel in before if before[accel] != after[accel]} == counts


def test_a_pace_that_goes_up_and_down_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "CPUINFO", tmp_path / "cpuinfo")
    keys = set()
    for pace in ("800.000", "3600.000"):
        (tmp_path / "cpuinfo").write_text(f"model name\t: i5\ncpu MHz\t: {pace}\nflags\t: fpu\n")
        keys.add(templates.key(["/bin/sh"], ORDER, IMAGE, "tcg"))
    assert len(keys) == 1


def test_a_host_is_its_processor_and_its_kernel() -> None:
    kernel, _, *cpu = templates._host().splitlines()
    assert kernel == platform.release()
    assert {"vendor_id", "flags"} <= {line.partition("\t")[0] for line in cpu}


def test_the_key_covers_the_builds_of_qemu_and_its_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either is a part of what was frozen, and neither notices that the other is another."""
    qemu, slirp = tmp_path / "qemu", tmp_path / "libslirp.so.0"
    for file in (qemu, slirp):
        file.write_bytes(b"1.0")
    patterns = []

    def glob(_: Path, pattern: str) -> list[Path]:
        patterns.append(pattern)
        return [slirp] if fnmatch(SLIRP, pattern) else []

    monkeypatch.setattr(Path, "glob", glob)
    keys = [templates.key([str(qemu)], ORDER, IMAGE, "tcg")]
    for file in (qemu, slirp):
        file.write_bytes(b"1.0.1")
        keys.append(templates.key([str(qemu)], ORDER, IMAGE, "tcg"))
    assert len(set(keys)) == 3, patterns


def test_an_order_without_docker_has_its_old_name() -> None:
    assert ORDER.shape is not None
    wanting = replace(ORDER, shape=replace(ORDER.shape, docker=True))
    assert launch_plan.digest(ORDER).startswith("678d7898acaa8d5f")
    assert launch_plan.digest(wanting) != launch_plan.digest(ORDER)
