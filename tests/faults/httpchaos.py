"""The random trouble of `chaos`, over HTTP against a local EC2."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.faults.chaos import DAY, Episode
from tests.faults.overhttp import OverHttp
from vmrunner.model import Kind
from vmrunner.providers.fake import Call
from vmrunner.testing.localcloud import (
    AFTER_ALL,
    DENIED,
    GARBAGE,
    INTERNAL,
    LOST_ANSWER,
    LOST_REQUEST,
    NO_CAPACITY,
    THROTTLED,
    UNAVAILABLE,
    Trouble,
)

ANY: Final = (LOST_REQUEST, LOST_ANSWER, INTERNAL, AFTER_ALL, UNAVAILABLE, THROTTLED, GARBAGE)
MORE: Final = {
    "create": (NO_CAPACITY, Trouble("VcpuLimitExceeded", 400, "more than your limit")),
    "arm": (DENIED,),
}


class HttpEpisode(Episode):
    """Of what the cloud in memory can do, all that this one can."""

    strikes = ("die", "preempt", "power off", "hang", "protect")
    plants = (Kind.INSTANCE, Kind.DISK)
    span = 600.0

    def __init__(self, template: Path, root: Path, seed: str, builds: int) -> None:
        super().__init__(template, root, seed, builds, cloud=OverHttp)

    def _nature(self) -> None:
        cloud, draw = self.world.cloud, self.random
        local = cloud.local
        local.boot_seconds = draw.choice((2.0, 20.0, 60.0))
        local.delete_seconds = draw.choice((0.0, 2.0, 40.0))
        local.visibility_lag = draw.choice((0.0, 5.0, 30.0))
        local.skew = draw.choice((0.0, 3.0, -3.0, DAY, -DAY))
        cloud.disks_stay = draw.random() < 0.5

    def _judge(self, call: Call) -> Trouble | None:
        often = self._faulty**2 if call.method == "sweep" else self._faulty
        if self.random.random() >= often:
            return None
        self.happened["failed calls"] += 1
        return self.random.choice(ANY + MORE.get(call.method, ()))
