"""What a keeper makes of its jail's words, without a VM."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmrunner.providers.qemu import keeper as keeper_module
from vmrunner.providers.qemu import state_dir
from vmrunner.providers.qemu.console import Console
from vmrunner.providers.qemu.jail import Jail
from vmrunner.providers.qemu.keeper import Keeper


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    directory = tmp_path / "instances" / "a_vm-1_2000000000"
    directory.mkdir(parents=True)
    keeper = Keeper(directory)
    keeper.deadline = time.time() + 60
    keeper.console = Console(directory / state_dir.CONSOLE)
    yield keeper
    keeper.console.close()
    for end in keeper._signals:
        os.close(end)


@pytest.fixture
def jail() -> Iterator[tuple[Jail, int]]:
    """A jail, and the end on which it says its news."""
    pipes = [os.pipe() for _ in range(4)]
    (life, life_end), (news, say), (console, console_end), (errors, complained) = pipes
    with subprocess.Popen(["sleep", "60"]) as process:
        yield Jail(pid=process.pid, life=life_end, news=news, console=console, errors=errors), say
        process.kill()
    for end in (life, news, console, console_end, errors, complained):
        os.close(end)


WORDS = [
    (b'{"exit": 0}\n', ("guest", "the guest switched itself off")),
    (b'{"exit": 1}\n', ("crash", "QEMU ended with 1")),
    (b'{"error": "pasta died"}\n', ("crash", "pasta died")),
    (b"", ("crash", "its jail was killed")),
]


CRASHES = [(b'{"exit": -11}\n', "crash"), (b"", "crash")]


@pytest.mark.parametrize(("word", "death"), WORDS)
@pytest.mark.parametrize("at_once", [True, False])
def test_how_qemu_ended_is_told_however_soon_it_was(
    keeper: Keeper,
    jail: tuple[Jail, int],
    word: bytes,
    death: tuple[str, str],
    at_once: bool,
) -> None:
    spec, say = jail
    os.write(say, b'{"running": 7}\n' + (word if at_once else b""))
    assert keeper._awaited(spec) is spec
    os.write(say, b"" if at_once else word)
    os.close(say)
    got = keeper.keep(spec)
    assert (got["cause"], got["detail"]) == death


def test_a_vm_that_never_ran_is_none(keeper: Keeper, jail: tuple[Jail, int]) -> None:
    spec, say = jail
    os.write(say, b'{"error": "no namespaces"}\n')
    os.close(say)
    assert keeper._awaited(spec) == "no namespaces"


def test_a_clone_that_never_answers_is_booted_instead(
    keeper: Keeper, jail: tuple[Jail, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clone, _ = jail
    keeper.unproven = time.monotonic()
    keeper.plan = {"overlay": ["true"], "qemu": [], "images": []}
    monkeypatch.setattr(keeper, "_launch", lambda *_: "no room")
    assert keeper.keep(clone)["detail"] == "no room"
    assert b"not resumed" in (keeper.instance_dir.path / state_dir.CONSOLE).read_bytes()


@pytest.mark.parametrize("overlay", ["/nonexistent", "sleep"])
def test_a_fresh_disk_that_cannot_be_made_is_told(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch, overlay: str
) -> None:
    monkeypatch.setattr(keeper_module, "_OVERLAY", 0.1)
    keeper.plan = {"overlay": [overlay, "60"]}
    assert "no fresh disk" in str(keeper._boot_instead("a reason"))


def test_no_start_is_awaited_past_the_deadline(keeper: Keeper, jail: tuple[Jail, int]) -> None:
    keeper.deadline = time.time() + 0.2
    assert keeper._awaited(jail[0]) == "it did not start in time"
    assert time.time() < keeper.deadline + 5


def test_nothing_is_booted_instead_past_the_deadline(keeper: Keeper) -> None:
    keeper.deadline = time.time()
    keeper.plan = {"overlay": ["/nonexistent"]}
    assert "deadline" in str(keeper._boot_instead("a reason"))


@pytest.fixture
def saves(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What time QEMU gets to save, by each who asks it to."""
    given: list[float] = []

    class SavingQmp:
        def __init__(self, _: socket.socket, *, seconds: float) -> None:
            given.append(seconds)

        def save(self) -> None:
            pass

    monkeypatch.setattr(keeper_module, "Qmp", SavingQmp)
    keeper.qmp, theirs = socket.socketpair()
    with keeper.qmp, theirs:
        yield given


@pytest.mark.parametrize(("word", "cause"), [(b'{"exit": 0}\n', "saved"), *CRASHES])
@pytest.mark.usefixtures("saves")
def test_a_template_is_saved_once_its_qemu_has_ended_well(
    keeper: Keeper, jail: tuple[Jail, int], word: bytes, cause: str
) -> None:
    spec, say = jail
    os.write(say, word)
    os.close(say)
    assert keeper._save(spec)["cause"] == cause


def test_no_vm_is_saved_past_its_deadline(
    keeper: Keeper, jail: tuple[Jail, int], saves: list[float]
) -> None:
    keeper.deadline = time.time() + 0.2
    assert keeper._save(jail[0])["cause"] == "crash"
    assert saves[0] <= 0.2
    assert time.time() < keeper.deadline + 5


def test_a_keeper_takes_an_earlier_end_and_no_later_one(keeper: Keeper) -> None:
    first, due = keeper.deadline, time.time() + 30
    keeper.instance_dir.write_time(state_dir.DUE, due + 600)
    keeper.deadline = keeper.instance_dir.lowered(keeper.deadline)
    assert keeper.deadline == first
    keeper.instance_dir.write_time(state_dir.DUE, due)
    keeper.deadline = keeper.instance_dir.lowered(keeper.deadline)
    assert keeper.deadline == due == keeper.instance_dir.time(state_dir.HELD)
    keeper.instance_dir.write_time(state_dir.DUE, due + 5)
    keeper.deadline = keeper.instance_dir.lowered(keeper.deadline)
    assert keeper.deadline == due


def test_a_signal_wakes_a_keeper_once(
    keeper: Keeper, jail: tuple[Jail, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is told an earlier end, as for a build from a pool, would never wait again."""
    exits: list[int] = []

    def due(_: Jail) -> dict[str, str]:
        exits.extend(select.select([keeper._signals[0]], [], [], 0)[0])
        return {"cause": "deleted", "detail": "deleted"}

    monkeypatch.setattr(keeper, "_due", due)
    os.write(keeper._signals[1], bytes([signal.SIGUSR1]))
    keeper.keep(jail[0])
    assert exits == []
