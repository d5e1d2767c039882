"""A message of a trouble that lasts: logged at once, then ever more rarely. Pure."""

from __future__ import annotations

from vmrunner.lib.backoff import backoff


class RareMessage:
    """The times at which it is logged: after `first` seconds for the second time, then after twice
    as many, at most `longest`."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._logged = 0
        self._next = 0.0

    def is_due(self, now: float) -> bool:
        """True if it is to be logged now, on a monotonic clock; then it counts as logged."""
        if self._logged and now < self._next:
            return False
        self._next = now + backoff(self._first, self._logged, self._longest)
        self._logged += 1
        return True

    def reset(self) -> bool:
        """Begin anew, since the trouble is over. True if it was logged."""
        logged, self._logged = self._logged, 0
        return logged > 0
