"""What a terminal's command shows when it begins."""

from __future__ import annotations

import secrets
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from vmrunner.errors import Conflict
from vmrunner.model import CommandOrder
from vmrunner.services.sandbox_terminal import SAID, SandboxTerminal

MARK = b"m\x1e"
FLOOD = b"y\r\n" * SAID


def lost(error: Exception) -> NoReturn:
    raise error


def opened(monkeypatch: pytest.MonkeyPatch, *pieces: bytes) -> SandboxTerminal:
    monkeypatch.setattr(secrets, "token_hex", lambda _: "m")
    coming = iter(pieces)
    channel = SimpleNamespace(receive=lambda _: next(coming), exit_code=1)
    connection: Any = SimpleNamespace(terminal=lambda *_: channel, close=lambda: None)
    box: Any = SimpleNamespace(inside=lambda words, **_: words)
    order = CommandOrder(id="c-1", argv=("yes",), title="yes")
    return SandboxTerminal(connection, box, order, 80, 24, lost)


@pytest.mark.parametrize("pieces", [(MARK + FLOOD,), (b"m", b"\x1e" + FLOOD)])
def test_a_flood_in_the_first_piece_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, pieces: tuple[bytes, ...]
) -> None:
    """So it comes where we are slow to look."""
    assert opened(monkeypatch, *pieces).receive() == FLOOD


@pytest.mark.parametrize("pieces", [(b"no such directory\r\n", b""), (FLOOD + b"no",)])
def test_words_before_it_begins_are_its_failure(
    monkeypatch: pytest.MonkeyPatch, pieces: tuple[bytes, ...]
) -> None:
    with pytest.raises(Conflict, match=r"terminal: .*no"):
        opened(monkeypatch, *pieces)
