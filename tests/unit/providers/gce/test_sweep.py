"""What a list over all zones leaves out, though it is a success."""

from __future__ import annotations

from typing import Any

import pytest
from google.cloud import compute_v1

from vmrunner.providers.gce.client import pb
from vmrunner.providers.gce.sweep import holes

AWAY = {"code": "UNREACHABLE", "message": "out of reach"}
EMPTY = {"code": "NO_RESULTS_ON_PAGE", "message": "nothing here"}


@pytest.mark.parametrize(
    ("page", "causes"),
    [
        ({}, []),
        ({"items": {"zones/a": {"disks": [{"name": "d"}]}, "zones/b": {"warning": EMPTY}}}, []),
        ({"warning": EMPTY}, []),
        ({"warning": AWAY}, [("", "out of reach")]),
        ({"warning": {"code": "UNREACHABLE"}}, [("", "UNREACHABLE")]),
        ({"unreachables": ["zones/b"]}, [("zones/b", "zones/b is unreachable")]),
        ({"items": {"zones/b": {"warning": AWAY}}}, [("zones/b", "zones/b: out of reach")]),
    ],
)
def test_each_way_to_say_it_is_heard(page: dict[str, Any], causes: list[tuple[str, str]]) -> None:
    assert list(holes(pb(compute_v1.DiskAggregatedList(page)))) == causes
