"""The claim on the VM's disk: its steps run once, whoever dies on the way."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.sshd import wait_for
from vmrunner.guest import state
from vmrunner.guest.prestart import leave_room
from vmrunner.guest.state import Place

ATTEMPT = "b-1/1"


@pytest.fixture(params=[True, False], ids=["room was left", "no room was left"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    place = Place(str(tmp_path / "run"), str(tmp_path / "lib"))
    place.make()
    if request.param:
        leave_room(place)
    return place


def test_a_claim_is_won_once(place: Place) -> None:
    assert place.was_started() == ""
    assert [place.claim(ATTEMPT), place.claim(ATTEMPT), place.claim("b-2/1")] == [
        True,
        False,
        False,
    ]
    assert place.was_started() == ATTEMPT


def test_of_two_claims_at_once_one_wins(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one comes when the first has found none and not yet written its own."""
    won: list[bool] = []
    second = threading.Thread(target=lambda: won.append(place.claim("b-2/1")))
    _once(monkeypatch, "pwrite", lambda: (second.start(), _stands(second, place)))
    won.append(place.claim(ATTEMPT))
    second.join()
    assert (sorted(won), place.was_started()) == ([False, True], ATTEMPT)


def test_room_that_is_left_late_loses_no_claim(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    _once(monkeypatch, "open", lambda: place.claim(ATTEMPT))
    leave_room(place)
    assert place.was_started() == ATTEMPT
    assert not place.claim("b-2/1")


@pytest.mark.parametrize("call", ["open", "read", "pwrite", "fdatasync", "close"])
@pytest.mark.parametrize("work", [lambda place: place.claim(ATTEMPT), leave_room])
def test_a_death_leaves_no_claim_or_all_of_it(
    place: Place, work: Callable[[Place], object], call: str
) -> None:
    child = os.fork()
    if not child:
        setattr(state.os, call, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        work(place)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    found = place.was_started()
    assert found in ("", ATTEMPT)
    assert place.claim("b-2/1") is (found == "")


def test_a_claim_that_is_found_is_made_safe(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who wrote it may have died before that; what runs now must not run after a reboot."""
    place.claim(ATTEMPT)
    safe: list[int] = []
    monkeypatch.setattr(state.os, "fdatasync", safe.append)
    assert not place.claim(ATTEMPT)
    assert len(safe) == 1


def _once(monkeypatch: pytest.MonkeyPatch, call: str, first: Callable[[], object]) -> None:
    """Have this happen when that call of `state` is made for the first time."""
    real = getattr(os, call)
    calls: list[object] = []

    def called(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        if len(calls) == 1:
            first()
        return real(*arguments, **options)

    monkeypatch.setattr(state.os, call, called)


def _stands(thread: threading.Thread, place: Place) -> None:
    """Wait until that thread waits for the lock of the claim, or is through."""
    number = Path(place.started).stat().st_ino

    def waits() -> bool:
        locks = Path("/proc/locks").read_text().splitlines()
        return any("->" in line and f":{number} " in line for line in locks)

    wait_for(lambda: waits() or not thread.is_alive())
