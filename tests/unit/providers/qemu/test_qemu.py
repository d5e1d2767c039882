"""The QEMU provider's parts that need no VM."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import json
import os
import re
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.sshd import wait_for
from vmrunner.lib import process
from vmrunner.model import Fate, Outcome, Scope
from vmrunner.providers.qemu import (
    command_line,
    launch_plan,
    network,
    processes,
    seed,
    state_dir,
    sweep,
)
from vmrunner.providers.qemu.command_line import QemuMachine
from vmrunner.providers.qemu.console import Console
from vmrunner.providers.qemu.state_dir import DirName, InstanceDir, StateDir

INSTALLATION = "6f1c0000-0000-4000-8000-000000000000"

# --- names ---------------------------------------------------------------------------------------

word = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", fullmatch=True)


@given(word, word, st.integers(0, 10**12 - 1))
def test_a_name_says_whose_which_and_until_when(
    installation: str, instance: str, deadline: int
) -> None:
    name = DirName(installation, instance, deadline)
    assert state_dir.parse(str(name)) == name


@pytest.mark.parametrize(
    "text", ["", "x", "a_b_c", "a_b_1.5", "a_b_-1", "../_b_1", "a_b_1_", ".new-a"]
)
def test_what_is_not_ours_has_no_name(text: str) -> None:
    assert state_dir.parse(text) is None


# --- the command line ----------------------------------------------------------------------------


def test_no_vm_locks_another_out_of_what_they_share(tmp_path: Path) -> None:
    """A QEMU that was taken over may lock whatever it may read."""
    shared = tmp_path / "disk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", shared, "1M"], check=True)
    words = [word for word in command_line.disk(template=True) if "read-only=on" in word]
    files = [word for word in words if word.startswith("driver=file,")]
    assert len(files) == 2
    everything = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    with shared.open("rb") as held:
        fcntl.fcntl(held, fcntl.F_OFD_SETLK, everything)
        for word in files:
            named = re.sub("/dev/fdset/[0-9]+", str(shared), word)
            options = ",".join(f"file.{option}" for option in named.split(","))
            info = ["qemu-img", "info", "--image-opts", f"driver=qcow2,read-only=on,{options}"]
            done = subprocess.run(info, capture_output=True, text=True, check=False)
            assert not done.returncode, done.stderr


def command(**other: object) -> list[str]:
    values: dict[str, object] = {
        "qemu": "/usr/bin/qemu",
        "guest": "vmrunner=1=a_b_2",
        "accel": "tcg",
        "cpus": 2,
        "memory": 2 << 30,
        "cmdline": "root=/dev/vda",
        "restrict": True,
        **other,
    }
    return command_line.command(QemuMachine(**values))  # type: ignore[arg-type]


def test_qemu_is_sandboxed_opens_no_path_and_starts_nothing() -> None:
    words = command()
    assert words[words.index("-sandbox") + 1].count("=deny") == 4
    assert words[words.index("-m") + 1] == "2048M"
    text = " ".join(words[1:])
    for prefix in ("/home", "/root", "/tmp", "/var", "script=", "guestfwd"):
        assert prefix not in text
    assert "restrict=on" in text
    assert "restrict=off" in " ".join(command(restrict=False))


def test_kvm_comes_as_a_descriptor() -> None:
    words = command(accel="kvm")
    assert "kvm,device=/dev/fdset/105" in words
    assert words[words.index("-cpu") + 1] == "host"


# --- the network ---------------------------------------------------------------------------------


def test_host_addresses_are_denied_beside_all_private_ones() -> None:
    text = network.rules(resolver="44.44.44.44", host=["5.6.7.8/32", "10.1.2.3/32", "5.6.7.0/24"])
    (line,) = (line for line in text.splitlines() if "elements" in line)
    denied = {word.strip(" {}=") for word in line.split("=")[1].split(",")}
    assert "5.6.7.0/24" in denied
    assert "5.6.7.8/32" not in denied, "nftables refuses what overlaps"
    assert {"169.254.0.0/16", "100.64.0.0/10", "192.168.0.0/16", "127.0.0.0/8"} <= denied
    assert "policy drop" in text
    none = network.rules(resolver=None, host=[])
    assert "meta nfproto ipv4" not in none
    assert "dport 53" not in none


def test_the_hosts_own_prefixes_are_found_without_loopback() -> None:
    for prefix in network.host_prefixes():
        assert not ipaddress.IPv4Network(prefix).is_loopback


def test_pasta_forwards_nothing_in_and_no_loopback() -> None:
    words = network.pasta("pasta", namespace="/proc/1/ns/net")
    for flag in ("-t", "-u", "-T", "-U"):
        assert words[words.index(flag) + 1] == "none"
    assert {"--no-map-gw", "--ipv4-only"} <= set(words)


# --- the seed ------------------------------------------------------------------------------------


def test_the_seed_is_an_iso_image_that_holds_the_files() -> None:
    image = seed.image({"user-data": b"#cloud-config\n" * 400, "meta-data": b""})
    assert image[32769:32774] == b"CD001"
    assert image[32808:32814] == b"CIDATA"
    assert len(image) % seed.SECTOR == 0
    assert int.from_bytes(image[32848:32852], "little") == len(image) // seed.SECTOR
    record = image.index(b"USER-DATA.;1") - 33
    at = int.from_bytes(image[record + 2 : record + 6], "little") * seed.SECTOR
    size = int.from_bytes(image[record + 10 : record + 14], "little")
    assert image[at : at + size] == b"#cloud-config\n" * 400


# --- the console ---------------------------------------------------------------------------------


def test_the_console_keeps_the_end_in_bounded_space(tmp_path: Path) -> None:
    console = Console(tmp_path / "console.log", limit=1000)
    for number in range(1000):
        console.write(f"line {number}\n".encode())
        assert (tmp_path / "console.log").stat().st_size <= 1000
    console.close()
    assert state_dir.console_tail(tmp_path, 9) == "line 999\n"


# --- the state directory -------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path)
    state.prepare()
    return state


def lying(state: StateDir, instance: str, deadline: int = 2_000_000_000) -> InstanceDir:
    home = InstanceDir(state.instances / str(DirName(INSTALLATION, instance, deadline)))
    home.path.mkdir()
    (home.path / state_dir.LOCK).touch()
    return home


def test_a_dead_vm_is_remembered_once_and_then_forgotten(state: StateDir) -> None:
    home = lying(state, "vm-1", deadline=1000)
    state.record_death(home, {"detail": "first", "ended": 900.0})
    assert not home.path.exists()
    state.record_death(home, {"detail": "second", "ended": 950.0})
    tombstone = state.tombstone("vm-1")
    assert tombstone is not None
    assert tombstone["detail"] == "first"
    state.prune(1000 + 99, remember=100, half_made=600)
    assert state.tombstone("vm-1") is not None
    state.prune(1000 + 101, remember=100, half_made=600)
    assert state.tombstone("vm-1") is None


def test_half_made_directories_are_no_vms_and_go_later(state: StateDir) -> None:
    half = state.instances / f"{state_dir.NEW}vm-1.0000"
    half.mkdir()
    assert state.instance_dirs() == []
    now = time.time()
    state.prune(now, remember=100, half_made=600)
    assert half.exists()
    state.prune(now + 601, remember=100, half_made=600)
    assert not half.exists()


def test_a_sweep_needs_no_file_in_the_directory(state: StateDir) -> None:
    home = lying(state, "vm-1", deadline=1234)
    (home.path / state_dir.TAGS).write_text("\0 nonsense")
    foreign = state.instances / "something else"
    foreign.mkdir()
    scope = sweep.scope(state)
    found = {r.ref.id: r for r in sweep.resources(state, sweep.mark(state), scope)}
    ours = found["vm-1"]
    assert (ours.tag("installation"), ours.instance, ours.expires_at) == (
        INSTALLATION,
        "vm-1",
        1234,
    )
    assert ours.role == "build"
    assert found["something else"].tags == {}, "shown, and nobody's"


def test_cloned_machines_have_scopes_of_their_own(tmp_path: Path) -> None:
    """Of equal machine ids, and even of equal paths. All processes of one have the same."""
    scopes = []
    for _ in range(2):
        state = StateDir(tmp_path / "state")
        state.prepare()
        scopes.append(sweep.scope(state))
        StateDir(state.path).prepare()
        assert sweep.scope(StateDir(state.path)) == scopes[-1]
        state.path.rename(tmp_path / scopes[-1].account)
    assert scopes[0].account != scopes[1].account
    assert scopes[0].place == scopes[1].place


def test_an_older_directory_keeps_the_scope_of_its_rows(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    state.instances.mkdir(parents=True)
    state.prepare()
    assert sweep.scope(state) == Scope(
        "qemu", processes.machine_id(state.path), str(tmp_path / "state")
    )


def test_what_the_name_says_wins_over_the_file(state: StateDir) -> None:
    home = lying(state, "vm-1", deadline=1234)
    tags = {"vmrunner:expires-at": "9999999999", "vmrunner:role": "image", "team": "core"}
    (home.path / state_dir.TAGS).write_text(json.dumps(tags))
    (found,) = sweep.resources(state, sweep.mark(state), sweep.scope(state))
    assert found.expires_at == 1234
    assert found.role == "image"
    assert found.tags["team"] == "core"


def test_a_full_disk_keeps_no_dead_vm(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fills it is the dead VM's own disk, so that goes before anything is written."""
    home = lying(state, "vm-1")
    state_dir.write_json(home.path / state_dir.PLAN, {"order": "x"})
    (home.path / state_dir.CONSOLE).write_text("the last words")
    disk = home.path / "overlay.qcow2"
    disk.write_bytes(b"x")
    append = state_dir._append

    def appended(path: Path, line: bytes) -> None:
        if disk.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        append(path, line)

    monkeypatch.setattr(state_dir, "_append", appended)
    assert sweep.end(state, sweep.mark(state), "vm-1", now=5.0, force=False) == Outcome(
        fate=Fate.ACCEPTED
    )
    assert not home.path.exists()
    tombstone = state.tombstone("vm-1")
    assert tombstone is not None
    assert (tombstone["order"], tombstone["console"]) == ("x", "the last words")


def test_a_tombstone_is_written_whole_or_not_at_all(state: StateDir) -> None:
    first, second = lying(state, "vm-1"), lying(state, "vm-2")
    state.record_death(first, {"detail": "first"})
    written = state.ended.stat().st_size
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (written + 10, hard))
    try:
        with pytest.raises(OSError, match="No space left"):
            state.record_death(second, {"detail": "second"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert state.ended.stat().st_size == written
    state.record_death(second, {"detail": "second"})
    assert set(state.tombstones()) == {"vm-1", "vm-2"}


# --- processes -----------------------------------------------------------------------------------


def test_a_pid_counts_only_with_start_boot_and_namespace() -> None:
    me = process.current()
    kept = processes.written(me)
    assert processes.parse(json.loads(json.dumps(kept))) == me
    for at, other in ((1, me.started + 1), (2, "another"), (3, "pid:[1]")):
        process_id = processes.parse([*kept[:at], other, *kept[at + 1 :]])
        assert process_id is not None
        assert not processes.send(process_id, 9), "else this test would be dead"
    assert processes.parse(kept[:3]) is None


MARKED = "vmrunner=5eed="
KEEPER = ("python", "-P", "-m", "vmrunner.providers.qemu.keeper", "/x/a_vm-1_2")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ((*command(guest=f"{MARKED}a_vm-1_2"),), "a_vm-1_2"),
        (("qemu", "-name", f"guest={MARKED}a_vm-1_2,debug-threads=on"), "a_vm-1_2"),
        ((*KEEPER, f"{MARKED}a_vm-1_2"), "a_vm-1_2"),
        (("qemu", "-name", "guest=vmrunner=another=a_vm-1_2"), None),
        (("qemu", "-nodefaults"), None),
        ((*KEEPER, f"{MARKED}a_vm-1_2", "more"), None),
        ((*KEEPER[:3], "another", "/x", f"{MARKED}a_vm-1_2"), None),
        (("grep", "-r", f"{MARKED}a_vm-1_2"), None),
        (("vmrunner", "run", "--", "qemu", "-name", f"guest={MARKED}a_vm-1_2"), None),
        (("sh", "-c", f"guest={MARKED}a_vm-1_2"), None),
        ((), None),
    ],
)
def test_a_vms_processes_are_known_by_their_command_line(
    words: tuple[str, ...], name: str | None
) -> None:
    cmdline = "".join(f"{word}\0" for word in words).encode()
    assert processes.name_in(cmdline, MARKED) == name


def test_a_process_merely_naming_a_vm_is_not_killed() -> None:
    mark = f"vmrunner={os.getpid()}="
    words = [sys.executable, "-c", "input()", f"guest={mark}a_vm-1_2"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as speaker:
        assert list(processes.marked(mark)) == []
        speaker.communicate(b"\n")
    assert speaker.returncode == 0


@contextlib.contextmanager
def faked(guest: str) -> Iterator[int]:
    """A process with a VM's command line, as anybody can have one; its pid."""
    words = ["find", "-name", guest, "-o", "-exec", "cat", ";", "-quit"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, cwd="/") as found:
        children = Path(f"/proc/{found.pid}/task/{found.pid}/children")
        # Until it is `cat`, the child has the words of its parent.
        wait_for(lambda: children.read_text() and _comm(children.read_text()) == "cat")
        yield found.pid
        found.communicate()


def _comm(pid: str) -> str:
    return Path(f"/proc/{pid.strip()}/comm").read_text().strip()


def test_another_users_process_is_no_vm_of_ours(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else any local user could fake a survivor, or have a process of his killed."""
    mark = sweep.mark(state)
    name = DirName(INSTALLATION, "vm-fake", 1_700_000_000)
    with faked(f"guest={mark}{name}") as pid:
        assert [process_id.pid for process_id, _ in processes.marked(mark)] == [pid], "ours, so far"
        ours = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: ours + 1)
        assert list(processes.marked(mark)) == []
        assert sweep.resources(state, mark, sweep.scope(state)) == ()
        end = sweep.end(state, mark, "vm-fake", now=time.time(), force=True)
        assert end == Outcome(fate=Fate.MISSING)
        assert Path(f"/proc/{pid}/cmdline").exists()


@pytest.mark.parametrize("search_path", [None, "", ":", ".", "bin:", f"{os.pathsep}/nowhere"])
def test_no_program_is_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search_path: str | None
) -> None:
    """A checkout may lie there."""
    for place in (tmp_path, tmp_path / "bin"):
        place.mkdir(exist_ok=True)
        (place / "qemu-of-a-checkout").touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    if search_path is None:
        monkeypatch.delenv("PATH")
    else:
        monkeypatch.setenv("PATH", search_path)
    assert launch_plan.find("qemu-of-a-checkout") is None
    assert launch_plan.find("ls") is not None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert launch_plan.find("qemu-of-a-checkout") == str(tmp_path / "qemu-of-a-checkout")


def test_the_keeper_starts_with_the_standard_library_alone() -> None:
    program = (
        "import sys, vmrunner.providers.qemu.keeper\n"
        "files = [str(getattr(module, '__file__', '')) for module in sys.modules.values()]\n"
        "print([file for file in files if 'site-packages' in file])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
