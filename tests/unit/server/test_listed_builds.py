"""Builds of lists: one that did not change is not written anew."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from tests.support.ledger_builds import spec
from vmrunner.model import BuildRecord, BuildState, Start
from vmrunner.server import listed_builds
from vmrunner.server.listed_builds import ListedBuilds


def build(name: str = "b-1", **changes: Any) -> BuildRecord:
    return BuildRecord(
        id=name, spec=spec(**changes), state=BuildState.QUEUED, created_at=1.0, state_since=1.0,
        actor="token:t-1",
    )  # fmt: skip


class Written(ListedBuilds):
    """Counts what is written."""

    def __init__(self) -> None:
        self.count = 0
        super().__init__(self._json)

    def _json(self, document: Any) -> bytes:
        self.count += 1
        return json.dumps(document).encode()

    def read(self, *words: Any) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text(*words))
        return found


def test_what_did_not_change_is_written_once() -> None:
    texts, row = Written(), build()
    first = texts.text(row, {"token:t-1": "ada"}, None, None)
    assert texts.text(row, {"token:t-1": "ada", "token:t-2": "bob"}, None, None) == first
    assert texts.count == 1


def test_whatever_changes_is_told() -> None:
    texts, row = Written(), build()
    assert texts.read(row, {}, None, None)["actor_name"] is None
    assert texts.read(row, {"token:t-1": "ada"}, None, None)["actor_name"] == "ada"
    assert texts.read(row, {}, Start.COLD, None)["start"] == "cold"
    assert texts.read(row, {}, Start.COLD, "it waits")["waiting"] == "it waits"
    assert texts.read(replace(row, message="x"), {}, Start.COLD, "it waits")["message"] == "x"
    assert texts.read(build("b-2"), {}, None, None)["id"] == "b-2"
    assert texts.count == 6


def test_what_is_kept_has_bounds(monkeypatch: Any) -> None:
    monkeypatch.setattr(listed_builds, "MOST_LISTED", 2)
    monkeypatch.setattr(listed_builds, "LISTED_BYTES", 5000)
    texts = Written()
    large = build("b-9", env={"X": "x" * 5000})
    rows = [build(f"b-{number}") for number in range(3)]
    for row in (*rows, large, large, rows[2], rows[1], rows[0]):
        texts.text(row, {}, None, None)
    assert texts.count == 6, "the large one twice, and the one that made way"
