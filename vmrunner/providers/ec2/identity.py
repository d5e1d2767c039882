"""Whose account it is, verified: by asking, once for each access key.

A key belongs to one account for ever. So what a profile says today needs no question as long as
the key is the same, and when it is another, nothing is concluded before that one was asked about.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from vmrunner.providers.common.clock import boottime
from vmrunner.providers.common.quiet import Quiet
from vmrunner.providers.ec2.calls import WHO, Calls


class Caller(NamedTuple):
    """Who the credentials are."""

    account: str
    arn: str

    @property
    def partition(self) -> str:
        """aws, aws-cn, aws-us-gov."""
        return self.arn.split(":")[1]


class Identity:
    """Who we are, in this account's eyes."""

    def __init__(self, calls: Calls, region: str, elapsed: Callable[[], float] = boottime) -> None:
        self._calls = calls
        self._region = region
        self._lock = threading.Lock()
        self._known: dict[str, Caller] = {}
        #: The same; None when it cannot be told, which is not tried at every question.
        self.quietly: Quiet[Caller] = Quiet(self.caller, elapsed)

    def caller(self) -> Caller:
        """Who we are right now. Raises `CallFailed`."""
        key = self._calls.key(self._region)
        with self._lock:
            if key not in self._known:
                told = self._calls(self._region, WHO)
                self._known[key] = Caller(str(told["Account"]), str(told["Arn"]))
            return self._known[key]
