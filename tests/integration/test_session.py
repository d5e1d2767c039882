"""Whole sessions, over a real sshd, with the supervisor's real program behind it."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_sessions import Recorder, Running
from tests.support.session_world import World
from tests.support.sshd import free_port, wait_for
from vmrunner.errors import Fenced
from vmrunner.guest import build
from vmrunner.lib.archive import files
from vmrunner.model import Address, ArtifactRule, BuildState, Reason, Result, Step
from vmrunner.session import End
from vmrunner.session import session as module

pytestmark = pytest.mark.timeout(120)


def test_a_build_from_source_to_artifacts(world: World, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "input").write_text("hello")
    with (tmp_path / "source.tar").open("wb") as file:
        files.pack(source, file)
    verdict = world.run(
        "cat input; mkdir -p dist; tr a-z A-Z <input >dist/out",
        source=tmp_path / "source.tar",
        rules=[ArtifactRule(glob="dist/*"), ArtifactRule(glob="*.xml")],
    )
    assert verdict == End(
        result=Result.SUCCESS,
        reason=Reason.EXIT_CODE,
        exit_code=0,
        message="artifacts: '*.xml' matched nothing in /work",
    )
    assert world.log == b"hello"
    assert world.record.busy
    assert (world.artifacts / "dist" / "out").read_text() == "HELLO"
    assert world.record.states == [
        BuildState.CONNECTING,
        BuildState.PREPARING,
        BuildState.RUNNING,
        BuildState.COLLECTING,
    ]
    assert world.record.kinds() == [
        "source",
        "container",
        "step_started",
        "step_ended",
        "artifacts",
        "artifact_missing",
    ]


def test_an_argv_is_one_command_with_its_own_exit_code(world: World) -> None:
    verdict = world.run(steps=[Step(argv=("sh", "-c", "echo \"$0\" '$x'; exit 7", "a b"))])
    assert (verdict.result, verdict.exit_code) == (Result.FAILURE, 7)
    assert world.log == b"a b $x\n"


def test_artifacts_of_a_failed_build_come_when_asked_for_always(world: World) -> None:
    rules = [ArtifactRule(glob="a"), ArtifactRule(glob="b", always=True)]
    verdict = world.run("touch a b; exit 3", rules=rules)
    assert verdict.exit_code == 3
    assert [path.name for path in world.artifacts.iterdir()] == ["b"]


def test_secrets_are_masked_and_their_number_too_short_is_told(world: World) -> None:
    secrets = {"TOKEN": b"s3cr3t-value", "PIN": b"123"}
    verdict = world.run("printf %s $TOKEN | base64; echo $TOKEN; echo $PIN", secrets=secrets)
    assert verdict.result is Result.SUCCESS
    assert world.log == b"***Cg==\n***\n123\n" or world.log.endswith(b"\n***\n123\n")
    assert b"s3cr3t" not in world.log
    assert ("secrets_too_short_to_mask", {"count": 1}) in world.record.events


def test_output_comes_while_the_build_runs(world: World, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    until = f"while [ ! -e {seen} ]; do sleep 0.1; done"
    running = Running(world.session(f"echo first; {until}; echo second"))
    wait_for(lambda: world.log == b"first\n")
    assert running.verdict is None
    seen.touch()
    assert running.wait().exit_code == 0
    assert world.log == b"first\nsecond\n"


def test_a_black_hole_in_mid_build_costs_no_byte(world: World) -> None:
    running = Running(world.session("for i in $(seq 60); do seq $i 20000; sleep 0.1; done"))
    wait_for(lambda: len(world.log) > 100_000)
    world.proxy.stalled.set()
    begun = time.monotonic()
    wait_for(lambda: "connection_lost" in world.record.kinds())
    assert time.monotonic() - begun < 15
    world.proxy.stalled.clear()
    assert running.wait().exit_code == 0
    assert world.log == b"".join(b"%d\n" % n for i in range(1, 61) for n in range(i, 20_001))
    assert "reconnected" in world.record.kinds()
    assert len(world.guest.docker.created) == 1


def test_ten_resets_cost_no_byte_and_leak_no_secret(world: World) -> None:
    secret = b"a-secret-that-is-long-enough-to-straddle"
    lines = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i $TOKEN; done; sleep 0.2;"
    running = Running(world.session(lines * 10, secrets={"TOKEN": secret}))
    for n in range(1, 11):
        wait_for(lambda n=n: running.verdict or len(world.log) > n * 25_000)
        world.proxy.cut()
    assert running.wait().exit_code == 0
    assert world.log == b"".join(b"%d ***\n" % i for i in range(1, 3001)) * 10
    assert secret[:12] not in world.log


def test_another_owner_goes_on_where_the_first_was(world: World) -> None:
    """The first one is not told: it finds out, and leaves."""
    secret = b"a-secret-that-is-long-enough-to-straddle"
    script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i $TOKEN; done; sleep 1; exit 5"
    options: dict[str, Any] = {"secrets": {"TOKEN": secret}}
    first = Running(world.session(script, **options))
    wait_for(lambda: len(world.log) > 20_000)
    second = Running(
        world.session(
            script, epoch=2, build={"state": BuildState.RUNNING, "steps_started": True}, **options
        )
    )
    assert second.wait().exit_code == 5
    with pytest.raises(Fenced):
        first.wait()
    assert world.log == b"".join(b"%d ***\n" % i for i in range(1, 20_001))
    assert len(world.guest.docker.created) == 1


def test_an_owner_that_comes_after_the_end_still_gets_all(world: World) -> None:
    world.run("seq 1000; touch a; exit 4")
    log, world.record = world.log, Recorder()
    verdict = world.run("", epoch=2, rules=[ArtifactRule(glob="a", always=True)])
    assert (verdict.exit_code, world.log) == (4, log)
    assert (world.artifacts / "a").exists()


@pytest.mark.parametrize("reason", [Reason.USER, Reason.OWNER_GONE])
def test_cancel_reaches_the_build_and_brings_what_is_always_wanted(
    world: World, reason: Reason
) -> None:
    rules = [ArtifactRule(glob="a", always=True)]
    running = Running(world.session("touch a; echo begun; sleep 100", rules=rules))
    wait_for(lambda: world.log == b"begun\n")
    begun = time.monotonic()
    running.session.stop(reason)
    assert running.wait() == End(result=Result.CANCELLED, reason=reason)
    assert time.monotonic() - begun < 10
    assert (world.artifacts / "a").exists()


def test_a_cancelled_build_is_told_by_whoever_drives_it_next(world: World) -> None:
    """Its process went away with the wish: the next one knows of both at its first look."""
    rules = [ArtifactRule(glob="a", always=True)]
    script = "touch a; echo begun; sleep 100"
    first = Running(world.session(script, rules=rules))
    wait_for(lambda: world.log == b"begun\n")
    first.session.stop(Reason.VM_LOST)
    assert first.wait().lost
    going_on = {"state": BuildState.RUNNING, "steps_started": True, "cancel": Reason.USER}
    session = world.session(script, epoch=2, rules=rules, build=going_on)
    session.stop(Reason.USER)
    assert Running(session).wait() == End(result=Result.CANCELLED, reason=Reason.USER)
    assert (world.artifacts / "a").exists()


def test_a_build_that_had_ended_keeps_its_end(world: World) -> None:
    """It was cancelled while its artifacts came, and its process went away."""
    rules = [ArtifactRule(glob="a", always=True)]
    world.run("touch a; exit 4")
    going_on = {"state": BuildState.COLLECTING, "steps_started": True, "cancel": Reason.USER}
    session = world.session("", epoch=2, rules=rules, build=going_on)
    session.stop(Reason.USER)
    assert Running(session).wait().exit_code == 4
    assert (world.artifacts / "a").exists()


def test_a_cancelled_build_out_of_reach_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CANCEL_TIMEOUT", 0.5)
    running = Running(world.session("echo begun; sleep 100"))
    wait_for(lambda: world.log == b"begun\n")
    world.proxy.refuse()
    wait_for(lambda: "connection_lost" in world.record.kinds())
    running.session.stop(Reason.USER)
    assert running.wait(10) == End(result=Result.CANCELLED, reason=Reason.USER)


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        (Reason.DEADLINE, End(result=Result.TIMEOUT, reason=Reason.DEADLINE)),
        (Reason.VM_LOST, End(result=Result.ERROR, reason=Reason.VM_LOST, lost=True)),
        (Reason.PREEMPTED, End(result=Result.ERROR, reason=Reason.PREEMPTED, lost=True)),
    ],
)
def test_other_reasons_do_not_wait(world: World, reason: Reason, verdict: End) -> None:
    running = Running(world.session("trap '' TERM; echo begun; sleep 100"))
    wait_for(lambda: world.log == b"begun\n")
    begun = time.monotonic()
    running.session.stop(reason)
    assert running.wait() == verdict
    assert time.monotonic() - begun < build.TERM_GRACE, "its VM is not asked to end it"


def test_stop_ends_waiting_for_a_vm_that_boots(world: World) -> None:
    session = world.session("true", address=Address("127.0.0.1", free_port()))
    running = Running(session)
    session.stop(Reason.USER)
    assert running.wait(5).reason is Reason.USER


def test_a_vm_that_never_answers_failed_to_boot(world: World) -> None:
    address = Address("127.0.0.1", free_port())
    verdict = world.run("true", address=address, boot_seconds=0.5)
    assert (verdict.reason, verdict.lost) == (Reason.BOOT_FAILED, True)
    assert (world.record.starts, world.record.states) == (0, [])


def test_a_vm_boots_until_ssh_answers(world: World) -> None:
    """The port of a VM that boots may take connections long before anybody is behind it."""
    world.proxy.stalled.set()
    running = Running(world.session("true"))
    wait_for(lambda: world.proxy.connections)
    assert world.record.states == []
    world.proxy.stalled.clear()
    assert running.wait().exit_code == 0
    assert world.record.states[:2] == [BuildState.CONNECTING, BuildState.PREPARING]


def test_a_vm_that_greets_is_connected_to(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address(*server.getsockname()[:2])
        running = Running(world.session("true", address=address))
        with server.accept()[0] as peer:
            peer.sendall(b"SSH-2.0-slow\r\n")
            wait_for(lambda: world.record.states == [BuildState.CONNECTING])
            running.session.stop(Reason.USER)
        assert running.wait().reason is Reason.USER


def test_a_connection_that_stays_lost_is_lost_at_the_deadline(world: World) -> None:
    running = Running(world.session("echo begun; sleep 100", deadline=6))
    wait_for(lambda: world.log == b"begun\n")
    world.proxy.refuse()
    verdict = running.wait(20)
    assert (verdict.reason, verdict.lost) == (Reason.CONNECTION_LOST, True)


def test_a_missing_container_image_is_an_error_of_ours(world: World) -> None:
    verdict = world.run("true", container="nope")
    assert (verdict.result, verdict.reason) == (Result.ERROR, Reason.IMAGE)
    assert "debian:trixie" in verdict.message


def test_a_container_that_never_started_has_no_artifacts(world: World) -> None:
    world.guest.docker.start_error = (500, "no space for a network")
    rules = [ArtifactRule(glob="x", always=True)]
    verdict = world.run("true", rules=rules)
    assert (verdict.result, verdict.reason) == (Result.ERROR, Reason.INTERNAL)
    assert BuildState.COLLECTING not in world.record.states


def test_timeouts_are_timeouts(world: World) -> None:
    verdict = world.run("sleep 50", timeout=0.5)
    assert (verdict.result, verdict.reason) == (Result.TIMEOUT, Reason.BUILD_TIMEOUT)
    assert world.record.events[-1][0] == "step_started"


def test_nothing_remains(world: World) -> None:
    before = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for n in range(3):
        world.record = Recorder()
        world.run("true", epoch=n + 1)
    world.proxy.cut()
    wait_for(lambda: threading.active_count() <= before[0] + 6)


# --- an image that is not ours ---


WAITING = """#!/bin/sh
until [ -e {state}/ready ]; do
    [ -d {state} ] || exit 1
    if [ -e {state}/failed ]; then cat {state}/failed >&2; exit 1; fi
    sleep 0.1
done
exec {real} "$@"
"""


def waiting(world: World) -> Path:
    """The VM bootstraps; the directory where it says how that ended."""
    program, state = Path(world.guest.supervisor), world.guest.directory
    real = program.rename(program.with_name("launcher"))
    program.write_text(WAITING.format(state=state, real=real))
    program.chmod(0o755)
    return state


def test_a_build_waits_for_the_bootstrap(world: World) -> None:
    state = waiting(world)
    running = Running(world.session("echo built", bootstrap=True))
    wait_for(lambda: world.record.busy)
    assert world.record.kinds() == []
    (state / "ready").touch()
    assert running.wait().exit_code == 0
    assert world.record.kinds()[0] == "bootstrapped"
    assert world.log == b"built\n"


def test_a_bootstrap_that_fails_is_a_boot_that_failed(world: World) -> None:
    (waiting(world) / "failed").write_text("bootstrap: E: Unable to locate package docker.io\n")
    verdict = world.run("true", bootstrap=True)
    assert (verdict.reason, verdict.lost) == (Reason.BOOT_FAILED, True)
    assert verdict.message == "bootstrap: E: Unable to locate package docker.io"
    assert world.record.starts == 0


def test_a_bootstrap_has_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmrunner.session.prepare.BOOTSTRAP", 0.5)
    waiting(world)
    verdict = world.run("true", bootstrap=True)
    assert verdict.reason is Reason.BOOT_FAILED
    assert "not bootstrapped within" in verdict.message


def test_an_image_without_a_supervisor_is_told_as_such(world: World) -> None:
    Path(world.guest.supervisor).unlink()
    verdict = world.run("true")
    assert (verdict.result, verdict.reason) == (Result.ERROR, Reason.INTERNAL)
    assert "--bootstrap" in verdict.message
