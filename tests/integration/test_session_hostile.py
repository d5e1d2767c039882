"""Sessions with VMs that lie, hang up, never begin, or send what nobody asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fake_sessions import Running
from tests.support.session_world import World
from tests.support.sshd import wait_for
from vmrunner.lib.archive import files
from vmrunner.model import ArtifactRule, Reason, Result
from vmrunner.session import session

pytestmark = pytest.mark.timeout(120)


def test_an_archive_with_parent_paths_writes_nothing_and_fails(
    world: World, tmp_path: Path
) -> None:
    world.lie_about_artifacts("../../evil")
    verdict = world.run("true", rules=[ArtifactRule(glob="x")])
    assert (verdict.result, verdict.reason) == (Result.ERROR, Reason.INTERNAL)
    assert "'../../evil' contains '..'" in verdict.message
    assert not list(tmp_path.rglob("evil"))


def test_artifacts_over_their_cap_are_refused(world: World) -> None:
    rules = [ArtifactRule(glob="big")]
    verdict = world.run("head -c 3000000 /dev/zero >big", rules=rules, artifact_bytes=1 << 20)
    assert verdict.result is Result.ERROR
    assert "'big' brings it to 3000000 bytes" in verdict.message


LIES = {
    "junk": ("head -c 100000 /dev/zero", "without a header"),
    "a log that begins later": ("printf 'L 5 1\\nx'", "is at byte 0, and it sent byte 5"),
    "an endless log": (
        'i=0; while :; do printf "L $i 100000\\n"; head -c 100000 /dev/zero; i=$((i+100000)); done',
        "more log than",
    ),
    "a wish that nobody had": (
        'e=\'{"seq":0,"kind":"ended","offset":0,"reason":"user"}\'; printf "E ${#e}\\n$e"; sleep 1',
        "it was not cancelled",
    ),
    "no end": ("exit 0", "exit code 0"),
    "a stale epoch": ("exit 3", "there is none"),
    "a log that shrank": ("exit 4", "shorter"),
    "a dead supervisor": ("exit 5", "died"),
    "an empty frame": ("printf 'L 0 0\\n'", "empty frame"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_vm_that_lies_gets_an_error_with_a_reason(world: World, name: str) -> None:
    script, message = LIES[name]
    world.lie(script)
    verdict = world.run("true", log_bytes=1 << 20)
    assert (verdict.result, verdict.reason) == (Result.ERROR, Reason.INTERNAL)
    assert message in verdict.message


def test_a_vm_that_keeps_hanging_up_gets_no_busy_loop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it was known to us, a VM might have us connect as fast as it can hang up."""
    monkeypatch.setattr(session, "RECONNECT_PAUSES", (0.0, 0.0, 0.0, 3600.0))
    world.lie(hangs_up("start"))
    running = Running(world.session("true"))
    wait_for(lambda: world.record.kinds().count("connection_lost") == 3)
    running.session.stop(Reason.USER)
    assert running.wait(10).reason is Reason.USER
    assert world.proxy.connections == 3


def test_a_byte_per_connection_gets_no_busy_loop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "RECONNECT_PAUSES", (0.0, 0.0, 0.0, 3600.0))
    byte = "shift 3; printf 'L %s 1\\nx' $1; sleep 0.3"  # longer than the relay's patience
    world.lie(hangs_up("start", byte))
    running = Running(world.session("true"))
    wait_for(lambda: world.record.kinds().count("connection_lost") == 3)
    running.session.stop(Reason.USER)
    assert running.wait(10).reason is Reason.USER
    assert world.proxy.connections == 3
    assert world.log == b"xxx"


def hangs_up(word: str, before: str = "") -> str:
    """A supervisor that kills its own sshd when it hears the word, and has done something."""
    return f'[ $1 = {word} ] || exec $REAL "$@"\n{before}\n{HANG_UP}'


@pytest.mark.parametrize("again", [True, False])
def test_a_connection_lost_after_the_end_costs_no_byte(
    world: World, monkeypatch: pytest.MonkeyPatch, *, again: bool
) -> None:
    """The log's last bytes might have become a secret, until its end came."""
    world.lie(hangs_up("start", '$REAL "$@"; sleep 0.5'))
    if not again:
        monkeypatch.setattr(session, "RECONNECT_PAUSES", (0.0, 3600.0))
    running = Running(world.session("printf 'end\\na-secr'", secrets={"TOKEN": b"a-secret"}))
    wait_for(lambda: "connection_lost" in world.record.kinds())
    if not again:
        running.session.stop(Reason.VM_LOST)
    assert running.wait(20).result is Result.SUCCESS
    assert world.log == b"end\na-secr"


# The nearest sshd above is the connection's own.
HANG_UP = """p=$PPID
case $(cat /proc/$p/comm) in sshd*) ;; *) p=$(cut -d' ' -f4 /proc/$p/stat) ;; esac
kill -9 $p
sleep 9"""


def test_a_vm_that_never_begins_the_steps_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.lie("sleep 60")
    monkeypatch.setattr(session, "START_PATIENCE", 1.0)
    verdict = world.run("true")
    assert (verdict.result, verdict.reason) == (Result.ERROR, Reason.INTERNAL)
    assert "did not begin" in verdict.message


@pytest.mark.parametrize(
    ("globs", "result", "reason"),
    [([], Result.SUCCESS, Reason.EXIT_CODE), (["a"], Result.CANCELLED, Reason.USER)],
)
def test_a_wish_after_the_end_changes_only_what_is_missing(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    globs: list[str],
    result: Result,
    reason: Reason,
) -> None:
    """The build has ended well, and then the VM cannot be reached any more."""
    monkeypatch.setattr(session, "RECONNECT_PAUSES", (0.0, 3600.0))
    world.lie(hangs_up("collect"))
    running = Running(world.session("true", rules=[ArtifactRule(glob=glob) for glob in globs]))
    if globs:
        wait_for(lambda: world.record.kinds().count("connection_lost") == 2)
        running.session.stop(Reason.USER)
    verdict = running.wait(20)
    assert (verdict.result, verdict.reason, verdict.exit_code) == (result, reason, 0)


def test_an_extraction_that_fails_in_an_unknown_way_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("nobody thought of it")

    monkeypatch.setattr(files, "extract", fail)
    verdict = world.run("touch a", rules=[ArtifactRule(glob="a")])
    assert (verdict.result, verdict.reason, verdict.lost) == (Result.ERROR, Reason.INTERNAL, False)
    assert verdict.message == "artifacts: RuntimeError: nobody thought of it"
