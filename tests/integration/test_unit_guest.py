"""A unit's supervisor beside a driver that it can neither see nor kill: two directories between
them are all that they share."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.guest import ROOT
from tests.support.sshd import wait_for
from tests.support.unit_guest import UnitGuest, job, living, unit_guest
from vmrunner.guest import unit_lay
from vmrunner.guest.beside import UnitPlace
from vmrunner.guest.caches import CacheWork
from vmrunner.guest.state import EventLog
from vmrunner.model import Reason

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[UnitGuest]:
    with unit_guest(tmp_path / "unit") as unit:
        yield unit


@pytest.fixture
def meanwhile(unit: UnitGuest) -> Iterator[Callable[[bytes], None]]:
    """Starts a build, and goes on."""
    threads = []

    def begin(order: bytes) -> None:
        threads.append(
            threading.Thread(target=unit.call, args=("start", "0", "0"), kwargs={"stdin": order})
        )
        threads[-1].start()

    yield begin
    unit.driver.kill()
    for thread in threads:
        thread.join(30)


def end(unit: UnitGuest) -> dict[str, Any]:
    """The last event, once it is there."""
    wait_for(lambda: '"kind":"ended"' in unit.events())
    event: dict[str, Any] = json.loads(unit.events().splitlines()[-1])
    return event


def log(unit: UnitGuest) -> str:
    path = unit.run / "spool/log"
    return path.read_text() if path.exists() else ""


def test_a_units_steps_run_and_their_end_is_told(unit: UnitGuest) -> None:
    unit.work.joinpath("file").write_text("of the source\n")
    build = unit.start(
        job("cat file; echo err >&2", "echo $TOKEN; exit 7", secrets={"TOKEN": "aGk="})
    )
    assert build.log == b"of the source\nerr\nhi\n"
    assert build.ended is not None
    assert (build.ended.reason, build.ended.exit_code) == (Reason.EXIT_CODE, 7)


def test_a_build_that_ends_at_once_loses_no_byte(unit: UnitGuest) -> None:
    write = "head -c 1048576 /dev/zero | tr '\\0' x; echo made >result; exit 3"
    build = unit.start(job(write))
    assert unit.driver.wait(10) == 3
    assert build.log == b"x" * 1048576
    done = unit.call("collect", stdin=json.dumps(["result"]).encode())
    assert done.stdout.startswith(b"[1]\n")
    assert b"made\n" in done.stdout


@pytest.mark.parametrize("how", ["node", "inside"])
def test_a_driver_that_dies_without_a_word_is_gone(
    unit: UnitGuest, meanwhile: Callable[[bytes], None], how: str
) -> None:
    """Its exit code is the system's to tell, whatever the last step seemed to do."""
    meanwhile(job("exit 0", "echo begun; sleep 600"))
    wait_for(lambda: "begun" in log(unit))
    if how == "node":
        os.kill(unit.container(), signal.SIGKILL)
    else:
        unit.driver.kill()
    event = end(unit)
    assert (event["reason"], event["exit_code"]) == ("container_gone", None)


def test_a_driver_that_is_dead_already_is_gone(unit: UnitGuest) -> None:
    os.kill(unit.container(), signal.SIGKILL)
    unit.driver.wait(10)
    unit.call("start", "0", "0", stdin=job("echo never"))
    assert end(unit)["reason"] == "container_gone"


def test_a_driver_that_died_before_it_began_is_gone(tmp_path: Path) -> None:
    """As where an image's shell ends at once: no end of it is heard."""
    with unit_guest(tmp_path / "unit", come_within=2) as unit:
        unit.driver.kill()
        unit.driver.wait(10)
        unit.call("start", "0", "0", stdin=job("echo never"))
        assert end(unit)["reason"] == "container_gone"


def test_a_driver_that_took_its_time_is_not_gone(tmp_path: Path) -> None:
    with unit_guest(tmp_path / "unit", come_within=0) as unit:
        unit.container()
        build = unit.start(job("sleep 2; exit 5"))
        assert build.ended is not None
        assert (build.ended.reason, build.ended.exit_code) == (Reason.EXIT_CODE, 5)


def test_a_cancelled_build_is_told_then_killed(
    unit: UnitGuest, meanwhile: Callable[[bytes], None]
) -> None:
    meanwhile(job("trap 'echo told' TERM; echo begun; while :; do sleep 600 & wait; done"))
    wait_for(lambda: "begun" in log(unit))
    unit.call("cancel", "cancelled")
    event = end(unit)
    assert (event["reason"], event["message"]) == ("cancelled", "")
    assert "told" in log(unit)
    assert unit.driver.wait(10) == 143


def test_a_build_that_kills_who_would_end_it_is_reported(
    unit: UnitGuest, meanwhile: Callable[[bytes], None]
) -> None:
    """The reason stays; whoever started the unit deletes it."""
    hostile = "kill -9 2; trap '' TERM; echo begun; while :; do sleep 9; done"
    meanwhile(job(hostile, timeout=2.0))
    event = end(unit)
    assert event["reason"] == "build_timeout"
    assert "cannot be killed" in event["message"]


def test_a_supervisor_that_is_killed_goes_on(
    unit: UnitGuest, meanwhile: Callable[[bytes], None]
) -> None:
    go = unit.work / "go"
    meanwhile(job(f"echo one; until [ -e {go} ]; do sleep 0.1; done; echo two"))
    wait_for(lambda: "one" in log(unit))
    resident = int((unit.run / "resident").read_text())
    for pid in living(unit.directory):
        if pid not in {unit.init.pid, unit.container()} and b"beside" in words(pid):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: int((unit.run / "resident").read_text()) != resident)
    go.touch()
    event = end(unit)
    assert (event["reason"], event["exit_code"]) == ("exit_code", 0)
    assert log(unit) == "one\ntwo\n"


def words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def test_at_its_end_a_unit_kills_and_leaves(tmp_path: Path) -> None:
    with unit_guest(tmp_path / "unit", ttl=4) as unit:
        thread = threading.Thread(
            target=unit.call, args=("start", "0", "0"), kwargs={"stdin": job("sleep 600")}
        )
        thread.start()
        assert unit.init.wait(30) == 0
        wait_for(lambda: unit.driver.poll() is not None)
    thread.join(10)  # in a unit all of ours ends with its process 1
    assert not thread.is_alive()


def test_a_job_for_docker_is_none_for_a_unit(unit: UnitGuest) -> None:
    order = json.loads(job("true"))
    del order["unit"]
    done = unit.call("start", "0", "0", stdin=json.dumps(order).encode())
    assert done.returncode == 1
    assert b"this is a unit" in done.stderr


# --- source and artifacts, while the image has processes of its own -------------------------------


@pytest.fixture
def swapping(unit: UnitGuest) -> Iterator[Path]:
    """A directory beside the work directory, to which `d` in there is a link half of the time."""
    out, directory, link = unit.directory / "out", unit.work / "d", unit.work / "link"
    out.mkdir()
    (out / "secret").write_text("host key")
    script = (
        f"while :; do rm -rf {link} {directory}.1; mkdir -p {directory}; "
        f"echo inside >{directory}/secret; mv -T {directory} {directory}.1; "
        f"ln -s {out} {link}; mv -T {link} {directory}; rm {directory}; done"
    )
    with subprocess.Popen(["/bin/sh", "-c", script], stderr=subprocess.DEVNULL) as swapper:
        try:
            wait_for((unit.work / "d.1").exists)
            yield out
        finally:
            swapper.kill()


def test_no_artifact_is_read_outside_the_work_directory(unit: UnitGuest, swapping: Path) -> None:
    (unit.work / "fixed").symlink_to(swapping)
    (unit.work / "up").symlink_to("../out")
    globs = json.dumps(["d/secret", "d/*", "d*/**", "fixed/secret", "up/*"]).encode()
    for _ in range(15):
        done = unit.call("collect", stdin=globs)
        assert b"host key" not in done.stdout
        counts = json.loads(done.stdout.partition(b"\n")[0])
        assert counts[3:] == [0, 0]


def test_no_source_is_written_outside_the_work_directory(unit: UnitGuest, swapping: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for number in range(400):
            member = tarfile.TarInfo(f"d/{number}")
            member.size = 4
            tar.addfile(member, io.BytesIO(b"ours"))
    for _ in range(8):
        unit.call("unpack", "--gzip", stdin=buffer.getvalue())
        assert [path.name for path in swapping.iterdir()] == ["secret"]
        assert (swapping / "secret").read_text() == "host key"


def test_source_becomes_the_work_directory_of_a_unit(unit: UnitGuest) -> None:
    (unit.work / "old/below").mkdir(parents=True)
    (unit.work / "other").symlink_to("/etc")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind in (("./a", tarfile.DIRTYPE), ("./a/run", tarfile.REGTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid = kind, 0o775, 1000
            tar.addfile(member, io.BytesIO())
        member = tarfile.TarInfo("a/link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    done = unit.call("unpack", stdin=buffer.getvalue())
    assert done.returncode == 0, done.stderr
    assert [path.name for path in unit.work.iterdir()] == ["a"]
    status = (unit.work / "a/run").stat()
    assert (status.st_mode & 0o7777, status.st_uid) == (0o775, 0)
    assert str((unit.work / "a/link").readlink()) == "/etc/passwd"
    broken = unit.call("unpack", stdin=b"no tar at all" * 100)
    assert (broken.returncode, broken.stderr) == (1, b"invalid header\n")


def test_artifacts_of_a_unit_are_a_tar(unit: UnitGuest) -> None:
    (unit.work / "dir/inner").mkdir(parents=True)
    (unit.work / "dir/inner/file").write_text("content")
    os.link(unit.work / "dir/inner/file", unit.work / "dir/again")
    (unit.work / "dir/link").symlink_to("inner/file")
    os.mkfifo(unit.work / "dir/fifo")
    done = unit.call("collect", "--gzip", stdin=json.dumps(["dir", "dir/*", "none"]).encode())
    assert done.returncode == 0, done.stderr
    counts, _, data = done.stdout.partition(b"\n")
    assert json.loads(counts) == [1, 4, 0]
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        kinds = {member.name: member.type for member in tar}
        assert kinds == {
            "./dir": tarfile.DIRTYPE,
            "./dir/again": tarfile.REGTYPE,
            "./dir/inner": tarfile.DIRTYPE,
            "./dir/inner/file": tarfile.REGTYPE,
            "./dir/link": tarfile.SYMTYPE,
        }
        file = tar.extractfile("./dir/again")
        assert file is not None
        assert file.read() == b"content"


# --- a spoiled box --------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> UnitPlace:
    for name in ("run", "box", "secrets", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "out/secret").write_text("host key")
    os.mkfifo(tmp_path / "out/fifo")
    paths = [str(tmp_path / name) for name in ("run", "lib", "box", "secrets")]
    return UnitPlace(paths[0], paths[1], box=paths[2], secrets=paths[3])


SPOILED = {
    "a link": lambda path, out: path.symlink_to(out / "secret"),
    "a link to a FIFO": lambda path, out: path.symlink_to(out / "fifo"),
    "a directory": lambda path, _: path.mkdir(),
    "a file": lambda path, _: path.write_text(""),
    "a device": lambda path, _: os.mknod(path, 0o020666, os.makedev(1, 5)),
    "a socket": lambda path, _: socket.socket(socket.AF_UNIX).bind(str(path)),
}


@pytest.mark.parametrize("kind", SPOILED)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_is_no_fifo_is_not_opened(place: UnitPlace, tmp_path: Path, kind: str) -> None:
    SPOILED[kind](tmp_path / "box/log", tmp_path / "out")
    with pytest.raises(OSError, match="no FIFO"):
        place.fifo("log")


@pytest.mark.parametrize("kind", ["a link", "a link to a FIFO", "a file", "a device"])
def test_nothing_is_written_through_what_lies_there(
    place: UnitPlace, tmp_path: Path, kind: str
) -> None:
    SPOILED[kind](tmp_path / "box/0.sh", tmp_path / "out")
    place.put("0.sh", b"echo a step")
    assert (tmp_path / "out/secret").read_text() == "host key"
    assert (tmp_path / "box/0.sh").read_text() == "echo a step"


def test_the_bell_of_the_caches_is_no_link(place: UnitPlace, tmp_path: Path) -> None:
    """Their process rings at `control`: through a link it would write what is ours."""
    (tmp_path / "box/control").symlink_to(tmp_path / "out/secret")
    job = {"caches": [{"path": "c"}], "cache_bytes": 1, "cache_gzip": False}
    (tmp_path / "run/spool").mkdir()
    work = CacheWork(
        place, job, EventLog(place.events), tell=lambda *_, **__: None, work=str(tmp_path)
    )
    work._begin([])
    os.waitpid(work._child, 0)
    assert (tmp_path / "out/secret").read_text() == "host key"


@pytest.fixture
def own_umask() -> Iterator[None]:
    """The mask of what is a process of its own elsewhere, and sets one."""
    mask = os.umask(0o022)
    yield
    os.umask(mask)


@pytest.mark.usefixtures("own_umask")
def test_whoever_fills_the_box_writes_through_nothing(place: UnitPlace, tmp_path: Path) -> None:
    for name in unit_lay.SCRIPTS:
        (tmp_path / "box" / name).symlink_to(tmp_path / "out/secret")
    for _ in range(2):
        assert unit_lay.lay(place.box) == 0
    assert (tmp_path / "out/secret").read_text() == "host key"
    modes = {path.name: path.lstat().st_mode for path in (tmp_path / "box").iterdir()}
    assert modes.pop("driver.sh") == modes.pop("beside.sh") == stat.S_IFREG | 0o644
    assert modes == dict.fromkeys(unit_lay.FIFOS, stat.S_IFIFO | 0o666)


@pytest.mark.usefixtures("own_umask")
def test_a_box_that_is_a_link_is_not_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "box").symlink_to(tmp_path / "out")
    with pytest.raises(OSError, match="Not a directory"):
        unit_lay.lay(str(tmp_path / "box"))


def test_no_directory_of_the_box_leads_elsewhere(place: UnitPlace, tmp_path: Path) -> None:
    (tmp_path / "box/commands").symlink_to(tmp_path / "out")
    for write in (place.make_directory, place.make_fifo, place.fifo):
        with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
            write("commands/1")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        place.put("commands/run.sh", b"")
    place.discard("commands", ("secret", "fifo"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["fifo", "secret"]


def test_a_box_of_many_files_takes_no_longer(place: UnitPlace, tmp_path: Path) -> None:
    """Nothing lists it: what the supervisor opens it knows by name."""
    place.make_directory("commands")
    place.make_directory("commands/1")
    for number in range(100_000):
        os.mknod(tmp_path / f"box/commands/1/{number}")
    place.make_fifo("commands/1/in")
    os.close(place.fifo("commands/1/in"))
    place.discard("commands/1", ("in",))
    assert not (tmp_path / "box/commands/1/in").exists()
    assert (tmp_path / "box/commands/1/99999").exists(), "left where it does no harm"


# --- sandboxes ------------------------------------------------------------------------------------


def sandbox(unit: UnitGuest) -> None:
    threading.Thread(
        target=unit.call,
        args=("start", "0", "0"),
        kwargs={"stdin": job(":", sandbox=True)},
        daemon=True,
    ).start()
    wait_for(lambda: '"kind":"step_ended"' in unit.events())


def command(name: str, *argv: str, **changes: Any) -> bytes:
    order = {
        "id": name,
        "title": name,
        "argv": argv,
        "env": {},
        "cwd": "/",
        "user": "",
        "stdin": False,
        "timeout": None,
    }
    return json.dumps({**order, **changes}).encode()


def test_commands_of_a_units_sandbox_run_and_end(unit: UnitGuest) -> None:
    sandbox(unit)
    done = unit.call(
        "exec", "0", "0", stdin=command("one", "sh", "-c", "echo out; echo err >&2; exit 3")
    )
    assert b"out\n" in done.stdout
    assert b"err\n" in done.stdout
    assert b'"exit_code": 3' in done.stdout
    unit.call(
        "exec", stdin=command("two", "sh", "-c", "trap 'exit 9' TERM; echo up; sleep 600 & wait")
    )
    out = unit.run / "commands/two/out"
    wait_for(lambda: out.exists() and out.read_text() == "up\n")
    assert unit.call("signal", "two", "15").returncode == 0
    assert b'"exit_code": 9' in unit.call("attach", "two", "0", "0").stdout


def test_a_command_that_heeds_nothing_is_killed(unit: UnitGuest) -> None:
    sandbox(unit)
    stubborn = "trap '' TERM; echo up; while :; do sleep 9; done"
    unit.call("exec", stdin=command("one", "sh", "-c", stubborn))
    out = unit.run / "commands/one/out"
    wait_for(lambda: out.exists() and out.read_text() == "up\n")
    assert unit.call("signal", "one", "9").returncode == 0
    assert b'"exit_code": 137' in unit.call("attach", "one", "0", "0").stdout
    again = unit.call("exec", "0", "0", stdin=command("two", "echo", "still here"))
    assert b"still here" in again.stdout


def operation(do: str, path: str, data: bytes = b"") -> bytes:
    pieces = b"%d\n%s" % (len(data), data) if data else b""
    return json.dumps({"do": do, "path": path}).encode() + b"\n" + pieces + b"0\n"


def test_files_of_a_units_sandbox_lie_in_its_work(unit: UnitGuest) -> None:
    sandbox(unit)
    file = str(unit.work / "a/file")
    assert unit.call("file", stdin=operation("write", file, b"content")).returncode == 0
    assert Path(file).read_bytes() == b"content"
    assert unit.call("file", stdin=operation("read", file)).stdout == b"content"
    (unit.work / "link").symlink_to(unit.run / "job.json")
    (unit.work / "up").symlink_to("../run/job.json")
    for name in ("link", "up"):
        done = unit.call("file", stdin=operation("read", str(unit.work / name)))
        assert (done.returncode, done.stdout) == (10, b"")


def test_files_elsewhere_are_the_business_of_the_images_programs(
    unit: UnitGuest, tmp_path: Path
) -> None:
    sandbox(unit)
    file = tmp_path / "elsewhere/a file"
    written = unit.call("file", stdin=operation("write", str(file), b"content\n"))
    assert (written.returncode, file.read_bytes()) == (0, b"content\n"), written.stderr
    assert unit.call("file", stdin=operation("read", str(file))).stdout == b"content\n"
    listed = unit.call("file", stdin=operation("list", str(file.parent)))
    entry = json.loads(listed.stdout)
    assert (entry["name"], entry["kind"], entry["size"]) == ("a file", "file", 8)
    absent = unit.call("file", stdin=operation("read", str(tmp_path / "absent")))
    assert (absent.returncode, json.loads(absent.stderr)["errno"]) == (10, "ENOENT")
    packed = unit.call("file", stdin=operation("pack", "/etc"))
    assert b"alone in a unit" in packed.stderr
    assert "content" not in log(unit)


@pytest.fixture
def sshd_script(tmp_path: Path) -> list[str]:
    """The words that run a unit's way to its sshd, which here tells whether the supervisor is there
    by then. All that it does is traced on stderr."""
    sshd = tmp_path / "sshd"
    sshd.write_text("#!/bin/sh\n[ -S /run/vmrunner/socket ] && echo the supervisor is there\n")
    sshd.chmod(0o755)
    script = ROOT / "vmrunner/guest/unit_sshd.sh"
    inside = "mount -t tmpfs run /run; mkdir /run/vmrunner; "
    inside += f"mount --bind {sshd} /usr/sbin/sshd; exec sh -x {script}"
    return ["unshare", "--mount", "sh", "-ec", inside]


def test_ssh_waits_for_the_supervisor_of_a_unit(tmp_path: Path, sshd_script: list[str]) -> None:
    trace = tmp_path / "trace"
    with trace.open("wb") as errors:
        process = subprocess.Popen(sshd_script, stdout=subprocess.PIPE, stderr=errors)
    wait_for(lambda: "sleep" in trace.read_text() or process.poll() is not None)
    with socket.socket(socket.AF_UNIX) as listener:
        if process.poll() is None:
            listener.bind(f"/proc/{process.pid}/root/run/vmrunner/socket")
        assert process.communicate(timeout=30)[0] == b"the supervisor is there\n"


def test_ssh_of_a_unit_without_supervisor_is_refused(
    tmp_path: Path, sshd_script: list[str]
) -> None:
    (tmp_path / "sleep").symlink_to("/bin/true")
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        sshd_script, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "the unit's supervisor does not come" in done.stderr
