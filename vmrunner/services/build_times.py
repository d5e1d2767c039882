"""A small plot of how long the builds of one name took. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Final

from vmrunner.lib import units
from vmrunner.model import BuildRecord, BuildState

_HEIGHT: Final = 40.0  # of the longest
_LEAST: Final = 1.5  # of the shortest


def seconds(build: BuildRecord) -> float:
    """Seconds that a finished build took, without its wait in the queue."""
    assert build.finished_at is not None
    phases = [phase for phase in build.phases if phase.state is not BuildState.QUEUED]
    begun = phases[0].started if phases else build.created_at
    return max(0.0, build.finished_at - begun)


def plot(builds: Sequence[BuildRecord]) -> dict[str, Any]:
    """A bar for each finished build, in their order, as a template draws it."""
    took = [seconds(build) for build in builds]
    longest = max(*took, 0.001)
    bars = []
    for build, each in zip(builds, took, strict=True):
        height = round(max(each / longest * _HEIGHT, _LEAST), 1)
        result = build.result.value if build.result else ""
        title = f"{result}, {units.span(each)}"
        bars.append(
            {"id": build.id, "result": result, "title": title, "height": height,
             "y": round(_HEIGHT - height, 1)}
        )  # fmt: skip
    good = sum(bar["result"] == "success" for bar in bars)
    return {
        "bars": bars,
        "height": _HEIGHT,
        "words": f"median {units.span(statistics.median(took))}, {good} of {len(bars)} succeeded",
    }
