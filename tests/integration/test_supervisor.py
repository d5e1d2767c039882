"""The supervisor's own program, without a VM: what it promises about steps, log and end."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.guest import Followed, Guest, booted, job, start
from tests.support.sshd import wait_for
from vmrunner.session.protocol import EndFrame, FrameDecoder, LogFrame


def test_steps_run_in_order_and_know_their_log_parts(guest: Guest) -> None:
    got = start(guest, job("echo one; echo err >&2", "printf 'two\\377'; pwd", "cat /etc/hostname"))
    first, second = b"one\nerr\n", b"two\xff" + str(guest.work).encode() + b"\n"
    assert got.log.startswith(first + second)
    assert got.at("step_started") == [0, len(first), len(first + second)]
    assert got.at("step_ended") == [len(first), len(first + second), len(got.log)]
    assert got.ended == EndFrame("exit_code", 0, "")


def test_the_first_failing_step_ends_the_build_with_its_code(guest: Guest) -> None:
    got = start(guest, job("true", "echo x; exit 7", "echo never"))
    assert (got.log, got.ended) == (b"x\n", EndFrame("exit_code", 7, ""))
    assert [event.data["exit_code"] for event in got.events if event.kind == "step_ended"] == [0, 7]


def test_a_shell_line_stops_at_its_first_failing_command(guest: Guest) -> None:
    assert start(guest, job("false\necho never")).ended == EndFrame("exit_code", 1, "")


def test_a_signal_is_named(guest: Guest) -> None:
    got = start(guest, job("exec sh -c 'kill -SEGV $$'"))
    assert got.ended is not None
    assert (got.ended.reason, got.ended.exit_code) == ("signal", 139)


def test_stdout_and_stderr_keep_their_order(guest: Guest) -> None:
    got = start(guest, job("for i in $(seq 2000); do echo $i; echo $i >&2; done"))
    assert got.log.split() == [str(i // 2 + 1).encode() for i in range(4000)]


def test_environment_and_secrets_reach_the_step_and_nothing_else(guest: Guest) -> None:
    secret = b'it\'s "quoted" $HOME\nand \xff more\n'
    order = job(
        'printf %s "$TOKEN"; printf "%s" "|$A|$B"',
        env={"A": "a b'c", "B": "outer"},
        secrets={"TOKEN": base64.b64encode(secret).decode()},
    )
    step = json.loads(order)
    step["steps"][0]["env"] = {"B": "inner"}
    got = start(guest, json.dumps(step).encode())
    assert got.log == secret + b"|a b'c|inner"
    assert "quoted" not in json.dumps(guest.docker.created)
    assert (guest.run / "secrets" / "TOKEN").read_bytes() == secret


def test_the_container_is_hardened(guest: Guest) -> None:
    start(guest, job("true", docker=True))
    request = guest.docker.created[0]
    host = request["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert "SYS_ADMIN" not in host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["NetworkMode"] == "none"
    assert host["LogConfig"] == {"Type": "none"}
    assert 0 < host["Memory"] == host["MemorySwap"]
    assert 0 < host["PidsLimit"] <= 4096
    assert any(bind.endswith(":/var/run/docker.sock") for bind in host["Binds"])
    assert "Env" not in request


def test_a_process_left_behind_does_not_hold_the_step(guest: Guest) -> None:
    begun = time.monotonic()
    got = start(guest, job("sleep 30 & echo forked", "(sleep 0.1; echo late) & sleep 0.5; echo b"))
    assert time.monotonic() - begun < 15
    assert (got.log, got.ended) == (b"forked\nlate\nb\n", EndFrame("exit_code", 0, ""))


def test_an_oversized_log_keeps_both_ends_and_counts_the_gap(guest: Guest) -> None:
    got = start(guest, job("seq 3000000; exit 3", log_bytes=1 << 20))
    size = sum(len(str(i)) + 1 for i in range(1, 3_000_001))
    head, _, rest = got.log.partition("\n… truncated: ".encode())
    count, _, tail = rest.partition(b" bytes dropped\n")
    assert head.startswith(b"1\n2\n3\n")
    assert tail.endswith(b"2999999\n3000000\n")
    assert tail.split(b"\n", 1)[0].isdigit()
    assert len(head) + len(tail) + int(count) == size
    assert len(got.log) <= 1 << 20
    assert got.at("log_full") == [len(head)]
    assert got.ended == EndFrame("exit_code", 3, "")


def test_a_log_just_over_the_head_is_whole(guest: Guest) -> None:
    got = start(guest, job("head -c 1000000 /dev/zero", log_bytes=1 << 20))
    assert got.log == bytes(1_000_000)


def test_a_10_mb_line_and_binary_bytes_come_through(guest: Guest) -> None:
    order = job(
        "head -c 10000000 /dev/zero | tr '\\0' x; echo; head -c 5000 /dev/urandom >f; cat f"
    )
    got = start(guest, json.dumps({**json.loads(order), "log_bytes": 32 << 20}).encode())
    assert got.log == b"x" * 10_000_000 + b"\n" + (guest.work / "f").read_bytes()


def test_a_step_that_takes_too_long_is_ended(guest: Guest) -> None:
    order = json.loads(job("true", "echo begun; sleep 60", "echo never"))
    order["steps"][1]["timeout"] = 0.5
    begun = time.monotonic()
    got = start(guest, json.dumps(order).encode())
    assert time.monotonic() - begun < 15
    assert (got.log, got.ended) == (b"begun\n", EndFrame("step_timeout", None, ""))


def test_a_build_that_takes_too_long_is_ended(guest: Guest) -> None:
    got = start(guest, job("sleep 60", timeout=0.5))
    assert got.ended == EndFrame("build_timeout", None, "")


def test_cancel_ends_it_in_seconds(guest: Guest) -> None:
    def cancel() -> None:
        wait_for(lambda: (guest.work / "begun").exists())
        assert guest.call("cancel", "user").returncode == 0

    thread = threading.Thread(target=cancel)
    thread.start()
    begun = time.monotonic()
    got = start(guest, job("touch begun; sleep 60", "echo never"))
    thread.join()
    assert time.monotonic() - begun < 15
    assert got.ended == EndFrame("user", None, "")


def test_steps_start_once_whoever_asks_however_often(guest: Guest) -> None:
    order = job("echo ran >>count; sleep 0.3; cat count")
    results: list[Followed] = []
    threads = [
        threading.Thread(target=lambda: results.append(start(guest, order))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = start(guest, order)
    assert [got.log for got in (*results, again)] == [b"ran\n"] * 5
    assert len(guest.docker.created) == 1
    other = guest.call("start", "0", "0", stdin=job("true", attempt="b-1/2"))
    assert other.returncode == 6
    assert guest.call("unpack").returncode == 6


def test_a_vm_that_rebooted_does_not_run_the_attempt_again(guest: Guest) -> None:
    start(guest, job("true"))
    subprocess.run(["rm", "-rf", guest.run], check=True)  # a tmpfs
    assert guest.call("start", "0", "0", stdin=job("true")).returncode == 6


@contextmanager
def following(guest: Guest, text: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """Who started a job that runs, and follows it."""
    argv = [guest.supervisor, "start", "--epoch", "1", "0", "0"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet) as process:
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.close()
        wait_for(lambda: guest.docker.process is not None)
        yield process


def test_a_lower_epoch_is_refused_and_its_follower_drops_out(guest: Guest) -> None:
    with following(guest, job("sleep 2; echo end")) as old:
        got = start(guest, job("never looked at"), epoch=2)
        assert old.wait(10) == 3
    assert got.log == b"end\n"
    assert guest.call("cancel", "user", epoch=1).returncode == 3


def test_following_goes_on_from_any_byte(guest: Guest) -> None:
    whole = start(guest, job("seq 1 1000", "seq 1001 2000"))
    for offset in (0, 1, 500, len(whole.log)):
        done = guest.call("follow", str(offset), "3")
        part = Followed.__new__(Followed)
        frames = FrameDecoder(offset=offset, steps=2, log_bytes=1 << 20)
        frames.seen = 3
        part.frames = list(frames.feed(done.stdout))
        assert (
            b"".join(f.data for f in part.frames if isinstance(f, LogFrame)) == whole.log[offset:]
        )
        assert isinstance(part.frames[-1], EndFrame)
    assert guest.call("follow", str(len(whole.log) + 1), "0").returncode == 4


def test_it_survives_its_own_death(guest: Guest) -> None:
    """Killed again and again while the build writes at full speed: no byte is lost or doubled."""
    stop = threading.Event()

    def murder() -> None:
        wait_for(lambda: guest.docker.process is not None)
        while not stop.wait(0.4):
            guest.kill_run()
            guest.restart_run()

    thread = threading.Thread(target=murder)
    thread.start()
    try:
        got = start(
            guest,
            job("seq 1 200000", "sleep 1; seq 200001 400000; exit 9", log_bytes=64 << 20),
        )
    finally:
        stop.set()
        thread.join()
    assert got.log == b"".join(b"%d\n" % i for i in range(1, 400_001))
    assert got.ended == EndFrame("exit_code", 9, "")
    assert len(guest.docker.created) == 1


def test_a_supervisor_that_stays_dead_is_noticed(guest: Guest) -> None:
    with following(guest, job("sleep 60")) as follower:
        guest.kill_run()
        assert follower.wait(20) == 5


def test_a_supervisor_that_dies_again_and_again_is_given_up(tmp_path: Path) -> None:
    """Each start lives for a moment, so at no look it has been dead for long."""
    with booted(tmp_path / "vm", starts=5) as guest:
        guest.docker.wait_bodies = [b'{"StatusCode":"never"}'] * 1000
        with following(guest, job("sleep 60")) as follower:
            again = [guest.supervisor, "run"]
            for _ in range(60):  # what systemd does, at once instead of after half a second
                if subprocess.run(again, stderr=subprocess.DEVNULL, check=False).returncode == 0:
                    break
            else:
                follower.kill()
                pytest.fail("it was started 60 times and never given up")
            assert follower.wait(20) == 5


def test_a_container_that_is_slow_to_die_is_killed_again(guest: Guest) -> None:
    """Docker waits ten seconds for the end, and then says that there was none."""
    guest.docker.slow_kills = 2
    got = start(guest, job("trap '' TERM; echo begun; while :; do sleep 1; done", timeout=0.5))
    assert (got.log, got.ended) == (b"begun\n", EndFrame("build_timeout", None, ""))
    assert guest.docker.slow_kills == 0


def test_a_dockerd_that_dies_amid_a_wait_is_asked_again(guest: Guest) -> None:
    guest.docker.wait_bodies = [b"", b"{}", b'{"Stat']
    got = start(guest, job("echo one; sleep 1; exit 4"))
    assert (got.log, got.ended) == (b"one\n", EndFrame("exit_code", 4, ""))


def test_a_dockerd_dying_during_inspect_costs_only_the_answer(guest: Guest) -> None:
    guest.docker.dies_at_inspect = True
    got = start(guest, job("exit 137"))
    assert got.ended == EndFrame("signal", 137, "ended by signal 9")


def test_a_missing_container_image_is_named_with_those_there_are(guest: Guest) -> None:
    got = start(guest, job("true", container="nope:1"))
    assert got.ended is not None
    assert got.ended.reason == "image"
    assert got.ended.message == (
        "container image nope:1 is not in this VM image; it has: debian:trixie"
    )


def test_a_container_without_a_shell_is_named(guest: Guest) -> None:
    guest.docker.start_error = (
        400,
        'failed to create task: exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown',
    )
    got = start(guest, job("true"))
    assert got.ended is not None
    assert (got.ended.reason, "no /bin/sh" in got.ended.message) == ("image", True)


def test_a_build_abusing_the_control_channel_hurts_only_itself(guest: Guest) -> None:
    box = guest.run / "box"
    got = start(
        guest,
        job(f"echo 'end 0 0' >{box}/control; echo 'start 1' >{box}/control; sleep 0.3; exit 7"),
    )
    assert got.ended == EndFrame("exit_code", 7, "")
