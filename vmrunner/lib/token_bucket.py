"""Token buckets: what waits for a token is not refused.

A burst then runs at the limit's own rate, without a storm of refusals. Others may draw on the same
limit: a refusal that comes all the same empties the bucket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

#: After a refusal, so long nothing is asked; doubled with each that follows at once.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 16.0
#: No cloud's own word for a pause counts for longer: what must die is to be asked for again.
LONGEST_TOLD: Final = 120.0


class Limit(NamedTuple):
    """A burst, and what comes back per second."""

    burst: float
    rate: float


class Bucket:
    """One limit. `now` is in seconds and never goes back."""

    def __init__(self, limit: Limit, now: Callable[[], float]) -> None:
        self._limit = limit
        self._now = now
        self._tokens = limit.burst
        self._at = now()
        self._pause = FIRST_PAUSE

    def wait(self, count: float) -> float:
        """Seconds until so many tokens are there."""
        self._refill()
        # More than fit in at all can be had when it is full.
        missing = min(count, self._limit.burst) - self._tokens
        return max(0.0, missing / self._limit.rate)

    def spare(self) -> float:
        """Return the tokens that are there."""
        self._refill()
        return max(0.0, self._tokens)

    def take(self, count: float) -> None:
        """Take tokens: they are in use from now on, also those that must still come."""
        self._refill()
        self._tokens -= count

    def refused(self, retry_after: float = 0.0) -> None:
        """Record a refusal: other callers took the tokens. `retry_after`: seconds until the next
        call, in the cloud's words."""
        self._refill()
        pause = max(self._pause, min(retry_after, LONGEST_TOLD))
        self._tokens = min(self._tokens, 1.0 - pause * self._limit.rate)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    @property
    def full(self) -> bool:
        """True if it is as a new one."""
        self._refill()
        return self._tokens >= self._limit.burst

    def granted(self) -> None:
        self._pause = FIRST_PAUSE

    def _refill(self) -> None:
        now = self._now()
        gained = self._limit.rate * (now - self._at)
        self._tokens, self._at = min(self._limit.burst, self._tokens + gained), now
