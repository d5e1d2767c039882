"""The random trouble of `chaos`, over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.faults.chaos import DAY, Episode
from tests.faults.http_side import HttpSide
from vmrunner.model import Kind
from vmrunner.providers.fake import Call


class HttpEpisode(Episode):
    """Of what the cloud in memory can do, all that this one can."""

    span = 600.0

    def __init__(
        self, template: Path, root: Path, seed: str, builds: int, side: type[HttpSide]
    ) -> None:
        # A schedule is in a group of its owner's, and by its name alone another's or ours.
        self.plants = [kind for kind in side.plantable if kind is not Kind.SCHEDULE]
        self._ills = tuple(ill for ills in side.troubles.values() for ill in ills)
        self._more = side.more
        self.strikes = side.strikes
        super().__init__(template, root, seed, builds, cloud=side)

    def _nature(self) -> None:
        cloud, draw = self.world.cloud, self.random
        local = cloud.local
        local.boot_seconds = draw.choice((2.0, 20.0, 60.0))
        local.delete_seconds = draw.choice((0.0, 2.0, 40.0))
        local.visibility_lag = draw.choice((0.0, 5.0, 30.0))
        local.skew = draw.choice((0.0, 3.0, -3.0, DAY, -DAY))
        cloud.disks_stay = draw.random() < 0.5

    def _judge(self, call: Call) -> Any:
        often = self._faulty**2 if call.method == "sweep" else self._faulty
        if self.random.random() >= often:
            return None
        self.happened["failed calls"] += 1
        return self.random.choice(self._ills + self._more.get(call.method, ()))
