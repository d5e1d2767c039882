"""Commands and files of a sandbox, in the supervisor's own program: without a VM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.guest import booted
from tests.support.guest_sandbox import Ran, Sandbox, sandbox
from tests.support.sshd import wait_for

pytestmark = pytest.mark.timeout(60)
__all__ = ["sandbox"]


def test_a_command_gives_its_streams_apart_and_its_code(sandbox: Sandbox) -> None:
    ran = sandbox.run("c1", 'echo "out $A"; echo err >&2; pwd; exit 7', env={"A": "it's"})
    assert ran.out == f"out it's\n{sandbox.guest.work}\n".encode()
    assert ran.err == b"err\n"
    assert (ran.end.exit_code, ran.end.timed_out) == (7, False)


def test_a_command_before_the_driver_may_start_runs(tmp_path: Path) -> None:
    """The shell that waits for leave to start forks it off: an orphan, which pid 1 takes on."""
    slow = "answer = build.GuestBuild._answer; "
    slow += "build.GuestBuild._answer = lambda *a: (__import__('time').sleep(2), answer(*a))"
    with booted(tmp_path / "vm") as guest:
        guest.set(slow)
        sandbox = Sandbox(guest)
        assert sandbox.run("c1", "echo early").out == b"early\n"
        sandbox.close()


def test_the_same_id_starts_once(sandbox: Sandbox) -> None:
    first = sandbox.run("c1", "echo ran >>count; cat count")
    again = sandbox.run("c1", "echo ran >>count; cat count")
    assert first.out == again.out == b"ran\n"
    other = sandbox.guest.call("exec", "0", "0", stdin=sandbox.order("c1", "true"))
    assert (other.returncode, b"another one" in other.stderr) == (7, True)


def test_output_is_read_again_from_any_offset(sandbox: Sandbox) -> None:
    sandbox.run("c1", "printf 0123456789; printf abc >&2")
    done = sandbox.guest.call("attach", "c1", "4", "1")
    ran = Ran(done.stdout, 4, 1)
    assert (ran.out, ran.err, ran.end.exit_code) == (b"456789", b"bc", 0)
    assert sandbox.guest.call("attach", "c1", "11", "0").returncode == 4
    assert sandbox.guest.call("attach", "none", "0", "0").returncode == 9


def test_a_timeout_ends_all_processes_of_a_command(sandbox: Sandbox) -> None:
    ran = sandbox.run("c1", "sleep 61 & sleep 61", timeout=0.5)
    assert ran.end.timed_out
    assert ran.end.exit_code != 0
    assert not [p for p in processes() if "sleep 61" in p]


def test_no_word_of_ours_is_in_a_commands_streams(sandbox: Sandbox) -> None:
    ran = sandbox.run("c1", "echo a; echo b >&2; sleep 61", timeout=0.5)
    assert (ran.out, ran.err, ran.end.timed_out) == (b"a\n", b"b\n", True)
    for name, words, code, text in (
        ("c2", ["nosuchcommand", "x"], 127, b"sh: nosuchcommand: not found\n"),
        ("c3", ["no such; it's", "x"], 127, b"sh: no such; it's: not found\n"),
        ("c4", ["/bin/sh", "-c", "kill -9 $$"], 137, b""),
        ("c5", ["/nowhere/x"], 127, b"sh: /nowhere/x: not found\n"),
    ):
        done = sandbox.guest.call("exec", "0", "0", stdin=sandbox.order(name, *words))
        ran = Ran(done.stdout)
        assert (ran.out, ran.err, ran.end.exit_code) == (b"", text, code), words


def test_a_signal_reaches_what_a_command_started(sandbox: Sandbox) -> None:
    name = "c1"
    script = "sh -c 'echo in; exec sleep 62'; echo after $?"
    assert sandbox.guest.call("exec", stdin=sandbox.order(name, "sh", "-c", script)).returncode == 0
    wait_for(lambda: any(p.startswith("sleep 62") for p in processes()))
    assert sandbox.guest.call("signal", name, "9").returncode == 0
    ran = Ran(sandbox.guest.call("attach", name, "0", "0").stdout)
    assert (ran.out, ran.end.exit_code) == (b"in\n", 137)
    assert not [p for p in processes() if "sleep 62" in p]


def test_stdin_comes_in_pieces_and_each_once(sandbox: Sandbox) -> None:
    order = sandbox.order("c1", "cat", stdin=True)
    assert sandbox.guest.call("exec", stdin=order).returncode == 0
    assert sandbox.guest.call("input", "c1", "0", stdin=b"one ").returncode == 0
    assert sandbox.guest.call("input", "c1", "0", stdin=b"one two ").returncode == 0  # said again
    assert sandbox.guest.call("input", "c1", "9", stdin=b"x").returncode == 13
    assert sandbox.guest.call("input", "c1", "8", "end", stdin=b"three").returncode == 0
    ran = Ran(sandbox.guest.call("attach", "c1", "0", "0").stdout)
    assert (ran.out, ran.end.exit_code) == (b"one two three", 0)


def test_a_stream_is_cut_and_says_so(sandbox: Sandbox) -> None:
    sandbox.guest.set("from vmrunner.guest import command; command.STREAM = 1000")
    ran = sandbox.run("c1", "head -c 5000 /dev/zero | tr '\\0' x; echo err >&2; exit 3")
    assert ran.out == b"x" * 1000 + "\n… truncated: 4000 bytes dropped\n".encode()
    assert (ran.err, ran.end.exit_code, ran.end.truncated) == (b"err\n", 3, True)


def test_what_old_commands_wrote_is_forgotten_for_new_ones(sandbox: Sandbox) -> None:
    sandbox.guest.set(
        "from pathlib import Path; from vmrunner.guest import command_records; "
        "command_records.room = lambda place: (16 << 20) + 3000 - "
        "sum(f.stat().st_size for f in Path(place.run).glob('commands/*/[oe]*'))"
    )
    sandbox.run("c1", "head -c 2000 /dev/zero")
    ran = sandbox.run("c2", "head -c 2000 /dev/zero")
    assert ran.out == bytes(2000)
    assert sandbox.guest.call("attach", "c1", "2000", "0").returncode == 4
    listed = sandbox.guest.call("commands").stdout.splitlines()
    assert [json.loads(line)["id"] for line in listed] == ["c1", "c2"]


def test_old_commands_are_forgotten_and_running_ones_are_not(sandbox: Sandbox) -> None:
    sandbox.guest.set(
        "from vmrunner.guest import command_records; "
        "command_records.KEPT_COMMANDS = 2; command_records.MORE = 0"
    )
    assert sandbox.guest.call("exec", stdin=sandbox.order("c0", "sleep", "3600")).returncode == 0
    for name in ("c1", "c2", "c3", "c4"):
        sandbox.run(name, "true")
    listed = sandbox.guest.call("commands").stdout.splitlines()
    assert [json.loads(line)["id"] for line in listed] == ["c0", "c3", "c4"]
    assert [path.name for path in (sandbox.guest.run / "running").iterdir()] == ["c0"]
    assert sandbox.guest.call("attach", "c1", "0", "0").returncode == 9
    assert sandbox.guest.call("signal", "c0", "15").returncode == 0
    wait_for(lambda: not list((sandbox.guest.run / "box/commands").iterdir()))
    sandbox.run("c5", "true")  # for it those go that ended first, not c0, which began first
    assert sandbox.guest.call("attach", "c0", "0", "0").returncode == 0


def test_no_more_run_at_once_than_the_cap(sandbox: Sandbox) -> None:
    sandbox.guest.set("from vmrunner.guest import sandbox_commands; sandbox_commands.AT_ONCE = 2")
    for name in ("c1", "c2"):
        assert sandbox.guest.call("exec", stdin=sandbox.order(name, "sleep", "63")).returncode == 0
    refused = sandbox.guest.call("exec", stdin=sandbox.order("c3", "true"))
    assert (refused.returncode, refused.stderr) == (8, b"2 commands run already\n")
    assert sandbox.guest.call("signal", "c1", "15").returncode == 0
    assert Ran(sandbox.guest.call("attach", "c1", "0", "0").stdout).end.exit_code == 143
    assert sandbox.run("c3", "true").end.exit_code == 0


def test_a_command_outlives_its_connection(sandbox: Sandbox) -> None:
    argv = [sandbox.guest.supervisor, "exec", "--epoch", "1", "0", "0"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as asker:
        assert asker.stdin is not None
        assert asker.stdout is not None
        asker.stdin.write(sandbox.order("c1", "sh", "-c", "echo a; while ! [ -e go ]; do :; done"))
        asker.stdin.close()
        assert asker.stdout.readline() == b"O 0 2\n"
        asker.stdout.close()
        (sandbox.guest.work / "go").touch()
        asker.wait(timeout=20)
    ran = Ran(sandbox.guest.call("attach", "c1", "0", "0").stdout)
    assert (ran.out, ran.end.exit_code) == (b"a\n", 0)


def test_an_owner_at_a_higher_epoch_ends_older_followers(sandbox: Sandbox) -> None:
    sandbox.guest.call("exec", stdin=sandbox.order("c1", "sleep", "64"))
    results: list[int] = []
    follower = threading.Thread(
        target=lambda: results.append(sandbox.guest.call("attach", "c1", "0", "0").returncode)
    )
    follower.start()
    assert sandbox.guest.call("signal", "c1", "0", epoch=2).returncode == 0
    follower.join(timeout=20)
    assert results == [3]
    assert sandbox.guest.call("signal", "c1", "9").returncode == 3
    assert sandbox.guest.call("signal", "c1", "9", epoch=2).returncode == 0


def test_a_shell_that_is_killed_ends_its_command(sandbox: Sandbox) -> None:
    assert sandbox.run("c1", "kill -9 $PPID; sleep 3").end.exit_code == 137


def test_its_log_has_all_that_its_commands_wrote(sandbox: Sandbox) -> None:
    sandbox.run("c1", "echo one")
    sandbox.run("c2", "echo two >&2")
    log = sandbox.guest.run / "spool" / "log"
    wait_for(lambda: b"two\n" in log.read_bytes()[-4:])
    assert log.read_bytes() == b"$ /bin/sh -c echo one\none\n$ /bin/sh -c echo two >&2\ntwo\n"


def test_files(sandbox: Sandbox) -> None:
    work = sandbox.guest.work
    assert sandbox.file("write", work / "a/b.txt", b"hello").returncode == 0
    assert sandbox.file("read", work / "a/b.txt").stdout == b"hello"
    assert sandbox.file("make_dir", work / "d/e").returncode == 0
    listed = [json.loads(line) for line in sandbox.file("list", work).stdout.splitlines()]
    assert [(file["name"], file["kind"]) for file in listed] == [("a", "dir"), ("d", "dir")]
    described = json.loads(sandbox.file("stat", work / "a/b.txt").stdout)
    assert (described["kind"], described["size"]) == ("file", 5)
    assert sandbox.file("remove", work / "a").returncode == 0
    missing = sandbox.file("read", work / "a/b.txt")
    assert missing.returncode == 10
    assert json.loads(missing.stderr)["errno"] == "ENOENT"
    (work / "fifo.d").mkdir()
    subprocess.run(["mkfifo", str(work / "fifo")], check=True)
    assert json.loads(sandbox.file("read", work / "fifo").stderr)["errno"] == "EINVAL"
    assert json.loads(sandbox.file("read", work / "fifo.d").stderr)["errno"] == "EISDIR"


def test_what_is_broken_off_is_no_file(sandbox: Sandbox) -> None:
    path = sandbox.guest.work / "f"
    path.write_text("former")
    cut = sandbox.file("write", path, b"half of", whole=False)
    assert (cut.returncode, json.loads(cut.stderr)["errno"]) == (10, "EPIPE")
    assert [(path.name, path.read_text()) for path in sandbox.guest.work.iterdir()] == [
        ("f", "former")
    ]


def test_a_file_is_written_through_links_and_over_no_device(sandbox: Sandbox) -> None:
    work = sandbox.guest.work
    (work / "d").mkdir()
    (work / "d/f").write_text("1")
    (work / "link").symlink_to("d/f")
    assert sandbox.file("write", work / "link", b"2").returncode == 0
    assert ((work / "link").is_symlink(), (work / "d/f").read_text()) == (True, "2")
    subprocess.run(["mkfifo", str(work / "fifo")], check=True)
    refused = sandbox.file("write", work / "fifo", b"2")
    assert json.loads(refused.stderr)["message"].endswith("it is no regular file")


def test_directories_go_there_and_back_as_tars(sandbox: Sandbox, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "f").write_text("x" * 100_000)
    packed = subprocess.run(["tar", "-C", source, "-c", "."], capture_output=True, check=True)
    assert sandbox.file("unpack", sandbox.guest.work / "in", packed.stdout).returncode == 0
    assert (sandbox.guest.work / "in/sub/f").stat().st_size == 100_000
    back = sandbox.file("pack", sandbox.guest.work / "in")
    (tmp_path / "back").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "back", "-x"], input=back.stdout, check=True)
    assert (tmp_path / "back/sub/f").read_text() == "x" * 100_000
    assert json.loads(sandbox.file("unpack", sandbox.guest.work / "x", b"no tar").stderr)


SLOW = (
    "import time; from vmrunner.guest import command; was = command.Command._prepare; "
    "command.Command._prepare = lambda self: (time.sleep(1), was(self))"
)


def test_what_begins_late_is_signalled_and_fed_all_the_same(sandbox: Sandbox) -> None:
    sandbox.guest.set(SLOW)
    for name in ("c1", "c2"):
        order = sandbox.order(name, "cat", stdin=True)
        assert sandbox.guest.call("exec", stdin=order).returncode == 0
    signalled = sandbox.guest.call("signal", "c1", "9")
    fed = sandbox.guest.call("input", "c2", "0", "end", stdin=b"in")
    assert (signalled.returncode, fed.returncode) == (0, 0), (signalled.stderr, fed.stderr)
    assert Ran(sandbox.guest.call("attach", "c1", "0", "0").stdout).end.exit_code == 137
    assert Ran(sandbox.guest.call("attach", "c2", "0", "0").stdout).out == b"in"
    assert sandbox.guest.call("input", "c2", "2", stdin=b"more").returncode == 0
    assert sandbox.guest.call("signal", "c2", "15").returncode == 0


def test_input_for_a_command_that_ended_is_let_go(sandbox: Sandbox) -> None:
    """It may have ended before it read all: its exit code says so, and no offset."""
    sandbox.run("c1", "exit 3", stdin=True)
    for words in (("0",), ("3",), ("3", "end")):
        assert sandbox.guest.call("input", "c1", *words, stdin=b"abc").returncode == 0


def test_one_without_a_stdin_says_so(sandbox: Sandbox) -> None:
    sandbox.run("c1", "true")
    refused = sandbox.guest.call("input", "c1", "0", stdin=b"x")
    assert (refused.returncode, b"without a stdin" in refused.stderr) == (12, True)


def test_who_gives_input_and_leaves_is_not_waited_for(sandbox: Sandbox) -> None:
    order = sandbox.order("c1", "sleep", "65", stdin=True)
    assert sandbox.guest.call("exec", stdin=order).returncode == 0
    argv = [sandbox.guest.supervisor, "input", "--epoch", "1", "c1", "0"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as giver:
        assert giver.stdin is not None
        assert giver.stdout is not None
        giver.stdin.write(bytes(128 << 10))
        giver.stdin.flush()
        taken = sandbox.guest.run / "commands/c1/taken"
        wait_for(lambda: taken.exists() and taken.read_text().startswith("65536"))
        giver.stdout.close()
        assert giver.wait(timeout=20) == 0
    assert sandbox.guest.call("signal", "c1", "9").returncode == 0


def test_a_timeout_is_no_success(sandbox: Sandbox) -> None:
    ran = sandbox.run("c1", "trap 'exit 0' TERM; sleep 66 & wait", timeout=0.5)
    assert (ran.end.timed_out, ran.end.exit_code) == (True, 124)


def test_a_command_is_run_letter_for_letter(sandbox: Sandbox) -> None:
    assert sandbox.run("c1", "echo @ENV@", env={"A": "1"}).out == b"@ENV@\n"


def test_long_words_of_old_commands_leave_room_for_new(sandbox: Sandbox) -> None:
    sandbox.guest.set(
        "from pathlib import Path; from vmrunner.guest import command_records; "
        "command_records.room = lambda place: (8 << 20) + 150_000 - "
        "sum(f.stat().st_size for f in Path(place.run).glob('commands/*/order'))"
    )
    for name in ("c1", "c2", "c3"):
        assert sandbox.run(name, "exit 3", env={"A": "x" * 60_000}).end.exit_code == 3
    listed = sandbox.guest.call("commands").stdout.splitlines()
    assert [json.loads(line)["id"] for line in listed] == ["c2", "c3"]


def test_an_order_that_cannot_be_kept_leaves_nothing(sandbox: Sandbox) -> None:
    sandbox.guest.set(
        "import os, errno; was = os.rename\n"
        "def rename(old, new):\n"
        "    if new.endswith('/order'): raise OSError(errno.ENOSPC, 'No space left')\n"
        "    was(old, new)\n"
        "os.rename = rename"
    )
    assert sandbox.guest.call("exec", stdin=sandbox.order("c1", "true")).returncode == 1
    assert list((sandbox.guest.run / "commands").iterdir()) == []


def test_one_whose_process_died_takes_no_place(sandbox: Sandbox) -> None:
    sandbox.guest.set("from vmrunner.guest import sandbox_commands; sandbox_commands.AT_ONCE = 1")
    assert sandbox.guest.call("exec", stdin=sandbox.order("c1", "sleep", "67")).returncode == 0
    alive = str(sandbox.guest.run / "commands/c1/alive")
    (keeper,) = {path.parts[2] for path in Path("/proc").glob("[0-9]*/fd/*") if link(path) == alive}
    os.kill(int(keeper), signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{keeper}").exists())
    assert sandbox.guest.call("exec", stdin=sandbox.order("c2", "true")).returncode == 0


def link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def test_what_no_file_operation_foresaw_is_refused(sandbox: Sandbox) -> None:
    deep = str(sandbox.guest.work) + "/d" * 1500
    assert sandbox.file("make_dir", deep).returncode in (0, 10)
    bad = sandbox.file("stat", "/\ud800")
    assert (bad.returncode, json.loads(bad.stderr)["errno"]) == (10, "EIO")


def processes() -> list[str]:
    return [
        path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists()
    ]


def test_nothing_left_behind_keeps_a_command_from_ending(sandbox: Sandbox) -> None:
    sandbox.guest.set(
        "from vmrunner.guest import command; was = command.Command._copy\n"
        "def copy(self, fd): return was(self, fd) or 4096  # there is always more\n"
        "command.Command._copy = copy"
    )
    assert sandbox.run("c1", "echo done").out == b"done\n"
