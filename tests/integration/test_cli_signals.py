"""What needs a process of its own: signals, pipes that close, terminals, background engines."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.foreground import Home, finish, own, read_until
from tests.support.scripted_app import wait_until
from vmrunner.model import Reason


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with own(tmp_path) as home:
        yield home


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_cancels_and_waits_for_the_vm(
    home: Home, number: signal.Signals, code: int
) -> None:
    run = home.start("run", *home.job("say begun", "sleep 60"))
    assert run.stdout is not None
    assert run.stdout.readline() == b"begun\n"
    run.send_signal(number)
    _, err = finish(run)
    assert run.returncode == code
    assert b"cancelling b-" in err
    last = err.splitlines()[-1]
    assert last.startswith(b"vmrunner: result=cancelled reason=user exit_code= build=b-")
    assert home.ledger.instances.open() == []


def test_the_second_signal_leaves_and_says_what_ends_the_vm(home: Home) -> None:
    run = home.start("run", *home.job("say begun", "deaf 600"))
    assert run.stdout is not None
    assert run.stdout.readline() == b"begun\n"
    run.send_signal(signal.SIGINT)
    read_until(run, b"once more leaves at once")
    began = time.monotonic()
    run.send_signal(signal.SIGINT)
    _, err = finish(run)
    assert time.monotonic() - began < 30
    assert run.returncode == 130
    (build,) = home.builds()
    assert f"leaving {build.id}: its VM ends with the next `vmrunner reap`, at" in err.decode()


def last_times(home: Home, content: str) -> None:
    times = home.root / "cache/vmrunner"
    times.mkdir(parents=True, exist_ok=True)
    (times / "last-times.json").write_text(content)


def test_a_pull_of_the_containers_image_is_told_and_timed(home: Home) -> None:
    last_times(home, '{"pull: python:3": 120}')
    pulled = home.root / "pulled"
    run = home.start("run", "--container", "python:3", *home.job(f"pull {pulled}", "say hello"))
    read_until(run, b"pulling container image python:3: it is not in the VM image (2m00s the last")
    pulled.touch()
    out, _ = finish(run)
    assert (run.returncode, out) == (0, b"hello\n")
    _, shown, _ = home.run("show", home.builds()[0].id)
    assert re.search(rb"\n +[0-9.]+m?s  pulled  python:3\n", shown), shown


def test_a_watched_list_gives_the_terminal_back_when_killed(home: Home) -> None:
    main, child = pty.openpty()
    watch = home.start("ps", "-w", stdout=child, stderr=child, stdin=child)
    os.close(child)
    seen, killed = b"", False
    while select.select([main], [], [], 60)[0]:
        try:
            seen += os.read(main, 65536)
        except OSError:
            break
        if b"no build" in seen and not killed:
            watch.send_signal(signal.SIGTERM)
            killed = True
    os.close(main)
    assert watch.wait(20) == 143
    assert seen.index(b"\x1b[?1049h") < seen.index(b"\x1b[?1049l"), seen


def test_artifacts_on_their_way_are_told_and_timed(home: Home) -> None:
    """Minutes passed without a word between `collecting` and the end."""
    last_times(home, '{"artifacts: nightly": 120}')
    brought = home.root / "brought"
    job = home.job("artifact out.txt x", f"bring {brought}")
    run = home.start("run", "--name", "nightly", "-a", "out.txt", *job)
    output = read_until(run, b"12.0 MiB of artifacts have come")
    assert b"collecting (2m00s the last time)" in output
    brought.touch()
    finish(run)
    assert run.returncode == 0


def test_a_sandbox_that_is_being_made_ends_with_its_maker(home: Home) -> None:
    assert home.run("drain")[0] == 0
    create = home.start("sandbox", "create")
    wait_until(lambda: bool(home.builds()))
    create.send_signal(signal.SIGTERM)
    finish(create)
    assert create.returncode == 143
    (build,) = home.builds()
    assert build.cancel is Reason.USER


def test_a_signal_while_nothing_was_submitted_ends_it(home: Home) -> None:
    os.mkfifo(home.root / "fifo")
    run = home.start("run", "--secret", f"S=@{home.root}/fifo", "--", "say", "x")
    with (home.root / "fifo").open("wb"):  # it waits for the secret now
        run.send_signal(signal.SIGINT)
        _, err = finish(run)
    assert run.returncode == 130
    assert b"Traceback" not in err
    assert not (home.root / "data").exists()


def test_what_nohup_ignores_does_not_cancel(home: Home) -> None:
    words = ("run", *home.job("say begun", f"until {home.root}/go", "say ended"))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = home.start(*words)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert run.stdout is not None
    assert run.stdout.readline() == b"begun\n"
    run.send_signal(signal.SIGHUP)
    (home.root / "go").touch()
    out, err = finish(run)
    assert (run.returncode, out) == (0, b"ended\n"), err


def test_a_build_cancelled_from_elsewhere_is_143(home: Home) -> None:
    run = home.start("run", *home.job("say begun", "sleep 60"))
    assert run.stdout is not None
    assert run.stdout.readline() == b"begun\n"
    (build,) = home.builds()
    home.ledger.builds.request_cancel(build.id, Reason.USER, time.time())
    _, err = finish(run)
    assert run.returncode == 143
    assert b"result=cancelled reason=user" in err.splitlines()[-1]


def test_a_detached_build_prints_its_id_and_runs_in_background(home: Home) -> None:
    go = home.root / "go"
    code, out, err = home.run("run", "-d", *home.job("say begun", f"until {go}", "exit 5"))
    assert code == 0, err
    build = out.decode().strip()
    assert out == f"{build}\n".encode()
    assert len(home.engines()) == 1
    code, again, _ = home.run("run", "-d", "--", "say", "second")
    assert len(home.engines()) == 1, "the one that is there serves both"
    watch = home.start("watch", build)
    assert watch.stdout is not None
    assert watch.stdout.readline() == b"begun\n"
    watch.send_signal(signal.SIGINT)
    finish(watch)
    assert watch.returncode == 130, "it stops watching"
    assert home.builds()[1].state == "running", "and the build goes on"
    follow = home.start("logs", "-f", build)
    go.touch()
    out, err = finish(follow)
    assert (follow.returncode, out, err) == (5, b"begun\n", b"")
    second = home.start("watch", again.decode().strip())
    finish(second)
    assert second.returncode == 0


def test_a_build_is_kept_on_failure_until_it_is_cancelled(home: Home) -> None:
    done = home.run("run", "--keep-on-failure", "10m", "--", "exit", "6")
    assert done[0] == 6
    assert re.search(rb"its VM is kept until \d{4}-\S+Z: vmrunner ssh b-", done[2])
    (build,) = home.builds()
    assert (build.state, build.result, build.submitter) == ("held", "failure", None)
    assert home.run("extend", build.id, "5m")[0] == 0
    longer = home.builds()[0].hold_until
    assert longer is not None
    assert build.hold_until is not None
    assert longer > build.hold_until
    capped = home.run("extend", build.id, "9h")
    assert b"not past the VM's deadline" in capped[2]
    assert home.run("cancel", build.id)[0] == 0
    wait_until(lambda: home.builds()[0].finished, what="the held build to end")


def test_a_reader_that_goes_away_ends_it_quietly(home: Home) -> None:
    build = home.run("run", *home.job(*["hex " + "61" * 8000] * 40))[2].split(b"build=")[1]
    logs = home.start("logs", build.decode().strip())
    assert logs.stdout is not None
    logs.stdout.read(10)
    logs.stdout.close()
    assert logs.stderr is not None
    assert logs.stderr.read() == b""
    assert logs.wait(20) == 141


def test_a_build_whose_reader_goes_away_says_so(home: Home) -> None:
    go = home.root / "never"
    lines = ["say begun", f"until {go}", *["hex " + "61" * 8000] * 40, f"until {home.root / 'no'}"]
    run = home.start("run", *home.job(*lines))
    assert run.stdout is not None
    assert run.stdout.read(6) == b"begun\n"
    run.stdout.close()
    go.touch()
    assert run.stderr is not None
    text = run.stderr.read()
    assert run.wait(60) == 141
    (build,) = home.builds()
    assert f"vmrunner: the reader of the output went away: {build.id} is cancelled".encode() in text
    assert b": the reader of its output went away" in home.run("show", build.id)[1]


def test_a_terminal_gets_one_live_line_and_only_colours(home: Home) -> None:
    main, child = pty.openpty()
    evil = b"\x1b]0;owned\x07\x1b[2J\x1b[31mred\x1b[0m\r\n"
    go = home.root / "go"
    lines = ("say begun", f"until {go}", f"hex {evil.hex()}")
    run = home.start("run", *home.job(*lines), stdout=child, stderr=child, stdin=child)
    os.close(child)
    seen = b""
    end = time.monotonic() + 120
    while select.select([main], [], [], 120)[0]:
        assert time.monotonic() < end, seen[-400:]
        try:
            data = os.read(main, 65536)
        except OSError:
            break
        seen += data
        if b"running" in seen and not go.exists():
            go.touch()
    os.close(main)
    assert run.wait(20) == 0
    assert b"\r\x1b[K" in seen, "a live line"
    assert b"VM ends in" in seen
    assert b"\x1b[31mred" in seen
    assert b"owned" not in seen
    assert b"\x1b[2J" not in seen
    assert seen.rstrip().splitlines()[-1].startswith(b"vmrunner: result=success") or (
        b"result=success" in seen.rstrip().splitlines()[-1]
    )
