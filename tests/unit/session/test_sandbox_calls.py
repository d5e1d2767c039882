"""Answers of a sandbox's VM, as its callers take them."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from vmrunner.errors import Conflict
from vmrunner.model import CommandOrder
from vmrunner.services.sandboxes import SandboxClient
from vmrunner.session.protocol import ProtocolViolation
from vmrunner.session.sandbox_calls import NOT_STARTED, SandboxCalls
from vmrunner.session.ssh.client import Completed


class Saying:
    """A connection over which each command is answered with the same bytes."""

    is_open = True

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def call(self, _: Any, __: Any, on_bytes: Callable[[bytes], object], **___: Any) -> Completed:
        on_bytes(self.answer)
        return Completed(0, b"", b"")

    def ask(self, path: Any, words: Any, _: Any, on_bytes: Any, **__: Any) -> Completed:
        return self.call(path, words, on_bytes)

    def close(self) -> None:
        pass


def listed(state: object) -> SandboxCalls:
    line = json.dumps({"id": "c", "title": "t", "state": state}).encode()
    return SandboxCalls(Saying(line), 1)  # type: ignore[arg-type]


def test_a_command_that_was_not_started_hides_no_other() -> None:
    (command,) = listed({"error": "OSError: the driver has no shell"}).commands()
    assert command.end is not None
    assert command.end.exit_code == NOT_STARTED


@pytest.mark.parametrize(
    "state", [[], "x", 7, {}, {"exit_code": []}, {"exit_code": "x"}, {"exit_code": float("inf")}]
)
def test_a_state_that_is_none_is_a_violation(state: object) -> None:
    with pytest.raises(ProtocolViolation):
        listed(state).commands()


def test_what_cannot_be_is_a_conflict_to_who_asks() -> None:
    answer = b'E 45\n{"error": "OSError: the driver has no shell"}'
    client = SandboxClient(
        SimpleNamespace(builds=SimpleNamespace(secrets=lambda _: {})),  # type: ignore[arg-type]
        "b-1",
        lambda _: None,  # type: ignore[arg-type,return-value]
        connect=lambda _: Saying(answer),  # type: ignore[arg-type,return-value]
    )
    client._current = SimpleNamespace(epoch=1), SimpleNamespace(id="vm-1")  # type: ignore[assignment]
    with pytest.raises(Conflict, match="b-1: the command was not started: OSError"):
        client.run(CommandOrder(id="c", argv=("true",), title="true"), lambda *_: None)
