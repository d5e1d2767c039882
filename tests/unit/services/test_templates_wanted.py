"""Templates that builds missed, made one after the other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.engine_parts import EngineParts
from tests.support.sshd import wait_for
from vmrunner.errors import ImageError
from vmrunner.images import templates as making
from vmrunner.ledger import Ledger
from vmrunner.providers import Provider
from vmrunner.runtime import daemon
from vmrunner.services import templates


def test_a_template_that_cannot_be_made_keeps_no_other_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def make(_: object, spec: str, *__: Any, **___: Any) -> str:
        if spec == "bad":
            raise ImageError("its clone does not answer")
        return "key"

    monkeypatch.setattr(making, "make", make)
    wanted = [("bad", None), ("good", None)]
    provider = SimpleNamespace(name="local", template_maker=list, wanted_templates=lambda: wanted)
    assert templates.make_wanted(cast(Provider, provider), cast(Ledger, None), "e-1") == "key"


def test_a_command_that_makes_one_shows_that_it_lives(
    parts: EngineParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reaper in another container does not see its process."""
    monkeypatch.setattr(templates, "HEARTBEAT", 0.001)

    def seen() -> dict[str, float]:
        return {engine.id: engine.seen_at for engine in parts.ledger.engines.list()}

    with templates._joined(parts.ledger) as maker:
        first = seen()[maker]
        wait_for(lambda: seen()[maker] > first)
    assert maker not in seen()


def test_serve_takes_no_maker_for_a_hung_one() -> None:
    """It has two VMs, one after the other."""
    assert daemon.PREPARE_BOUND > 2 * making.LIFE
