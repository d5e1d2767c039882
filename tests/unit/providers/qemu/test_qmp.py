"""QEMU's protocol: what a resume and a save ask for, and what is made of refusals and silence."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vmrunner.providers.qemu.qmp import Qmp, QmpError


class Qemu:
    """The other end: answers each command from a table, and notes it."""

    def __init__(self, answers: dict[str, list[Any]]) -> None:
        self.commands: list[str] = []
        self._answers = answers
        self.ours, self._socket = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._socket, self._socket.makefile("r") as lines:
            self._say({"QMP": {}})
            for line in lines:
                name = json.loads(line)["execute"]
                self.commands.append(name)
                found = self._answers.get(name, [])
                answer = found.pop(0) if len(found) > 1 else found[0] if found else {}
                if answer is None:
                    return
                self._say({"event": "SOMETHING"})
                self._say(answer if "error" in answer else {"return": answer})

    def _say(self, value: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps(value).encode() + b"\r\n")

    def close(self) -> None:
        self.ours.close()
        self._thread.join(5)


@pytest.fixture
def start() -> Iterator[Callable[..., Qemu]]:
    started: list[Qemu] = []

    def start(**answers: list[Any]) -> Qemu:
        table = {name.replace("_", "-"): found for name, found in answers.items()}
        started.append(Qemu({**table, "qmp_capabilities": [{}]}))
        return started[-1]

    yield start
    for qemu in started:
        qemu.close()


def test_a_resume_loads_waits_and_goes_on(start: Callable[..., Qemu]) -> None:
    qemu = start(query_status=[{"status": "inmigrate"}, {"status": "paused"}])
    Qmp(qemu.ours, seconds=10).resume()
    assert [name for name in qemu.commands if name != "query-status"] == [
        *("qmp_capabilities", "migrate-set-capabilities", "migrate-incoming", "cont")
    ]


def test_a_save_stops_the_vm_first_and_ends_it_last(start: Callable[..., Qemu]) -> None:
    qemu = start(query_migrate=[{"status": "active"}, {"status": "completed"}])
    Qmp(qemu.ours, seconds=10).save()
    assert qemu.commands[2:4] == ["stop", "migrate"]
    assert qemu.commands[-1] == "quit"


REFUSALS: dict[str, dict[str, list[Any]]] = {
    "a state of another machine": {"migrate_incoming": [{"error": {"desc": "unknown section"}}]},
    "QEMU that ends": {"query_status": [None]},
    "a state that was not loaded": {"cont": [{"error": {"desc": "expecting an incoming"}}]},
}


@pytest.mark.parametrize("why", REFUSALS)
def test_what_cannot_be_resumed_is_an_error(start: Callable[..., Qemu], why: str) -> None:
    qemu = start(**{"query_status": [{"status": "paused"}], **REFUSALS[why]})
    with pytest.raises(QmpError):
        Qmp(qemu.ours, seconds=10).resume()


def test_a_save_that_fails_is_an_error(start: Callable[..., Qemu]) -> None:
    qemu = start(query_migrate=[{"status": "failed"}])
    with pytest.raises(QmpError, match="not saved"):
        Qmp(qemu.ours, seconds=10).save()


def test_a_silent_qemu_is_given_up() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(QmpError):
        Qmp(ours, seconds=0.2)


GARBAGE = [b"no JSON\n", b"[" * 100_000 + b"\n", b'{"error": 1}\n', b'{"return": 1}\n', b"\xff\n"]


@pytest.mark.parametrize("answer", GARBAGE)
def test_what_is_no_answer_is_an_error(answer: bytes) -> None:
    ours, theirs = socket.socketpair()
    answers = b'{"QMP": {}}\n{"return": {}}\n{"return": {}}\n{"return": {}}\n'
    theirs.settimeout(10)
    theirs.sendall(answers + answer)
    theirs.shutdown(socket.SHUT_WR)
    with ours, theirs, pytest.raises(QmpError):
        Qmp(ours, seconds=10).resume()
