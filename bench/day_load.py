"""What comes in `bench/day.py`: builds in bursts, and what befalls them."""

from __future__ import annotations

from random import Random
from typing import Final, NamedTuple

from vmrunner.model import Scope
from vmrunner.providers.fake import Fault

DAY: Final = 86_400.0
REGIONS: Final = {
    region: [Scope("fake", "account", f"{region}-{zone}") for zone in "ab"]
    for region in ("eu", "us", "ap")
}
BOOT, DELETE = 20.0, 10.0  # seconds
TIMEOUT, TTL = 1800.0, 2700.0
LOG: Final = b"".join(b"%4d compiling src/module.c\n" % line for line in range(60))
#: The share of calls that fare so.
REFUSALS: Final = {
    "create": ((0.02, Fault.NO_CAPACITY), (0.005, Fault.THROTTLE), (0.002, Fault.LOST_RESPONSE)),
    "delete": ((0.005, Fault.THROTTLE), (0.002, Fault.LOST_REQUEST)),
    "look": ((0.005, Fault.THROTTLE),),
}


class Load(NamedTuple):
    """What comes. A burst is `high` times the mean for a fifth of each quarter of an hour."""

    pace: float  # builds a day
    live: int  # VMs at most
    lost: float  # share of VMs
    over_http: int  # each so many-th build comes by HTTP, and is asked for there
    cycle: float = 900.0
    high: float = 3.0

    @property
    def hold(self) -> float:
        """Mean seconds that a build has its VM: so that on average 70 % of the places are taken."""
        return 0.7 * self.live * DAY / self.pace

    def next(self, at: float, draw: Random) -> float:
        """The time of the next build after `at`."""
        mean = self.pace / DAY
        while True:
            part = at % self.cycle
            burst = part < self.cycle / 5
            rate = mean * (self.high if burst else (5 - self.high) / 4)
            end = at - part + (self.cycle / 5 if burst else self.cycle)
            at += draw.expovariate(rate)
            if at < end:
                return at
            at = end
