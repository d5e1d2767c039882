"""Identity of the account, verified: by asking, once for each access key.

A key belongs to one account for ever. So what a profile says today needs no question as long as
the key is the same, and when it is another, nothing is concluded before that one was asked about.
STS tells; while it does not, EC2 does, by the owner of what it shows: nothing may keep a VM alive
that is past its deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.clock import boottime
from vmrunner.providers.common.cooldown import CallCooldown
from vmrunner.providers.ec2.client import INSTANCES, WHO, Ec2Client

_FEW: Final = 5  # instances, the least that a page has


class Caller(NamedTuple):
    """The owner of the credentials."""

    account: str
    arn: str

    @property
    def partition(self) -> str:
        """aws, aws-cn, aws-us-gov."""
        return self.arn.split(":")[1]


class Ec2Identity:
    """Our identity in this account. `regions`: where there may be instances of it."""

    def __init__(
        self, client: Ec2Client, regions: Sequence[str], elapsed: Callable[[], float] = boottime
    ) -> None:
        self._client = client
        self._regions = regions
        self._lock = threading.Lock()
        self._callers: dict[str, Caller] = {}
        self._owners: dict[str, str] = {}
        self._elapsed = elapsed
        self._silent: dict[str, tuple[float, CallFailed]] = {}  # when STS did not tell, by key
        #: The account; None when it cannot be told, which is not tried at every question.
        self.quietly: CallCooldown[str] = CallCooldown(self.account, self._known_account, elapsed)

    def caller(self) -> Caller:
        """Identity of these credentials right now. Raises `CallFailed`."""
        key, arrived = self._client.key(self._regions[0]), self._elapsed()
        with self._lock:
            return self._caller(key, arrived)

    def account(self) -> str:
        """Account of these credentials right now. Raises `CallFailed`."""
        key, arrived = self._client.key(self._regions[0]), self._elapsed()
        with self._lock:
            if key in self._owners:
                return self._owners[key]
            try:
                return self._caller(key, arrived).account
            except CallFailed:  # a denial too: EC2 may still let us in
                owner = self._owner()
                if owner is None:
                    raise
                self._owners[key] = owner
                return owner

    def _known_account(self) -> str | None:
        """Return the account where it was told already."""
        try:
            key = self._client.key(self._regions[0])
        except CallFailed:
            return None
        caller = self._callers.get(key)
        return caller.account if caller is not None else self._owners.get(key)

    def _caller(self, key: str, arrived: float) -> Caller:
        """Ask once for all callers that arrived meanwhile: they share a failure."""
        if key not in self._callers:
            at, failed = self._silent.get(key, (None, None))
            if failed is not None and at is not None and at > arrived:
                raise failed
            try:
                answer = self._client(self._regions[0], WHO)
            except CallFailed as failed:
                self._silent = {key: (self._elapsed(), failed)}
                raise
            self._callers[key] = Caller(str(answer["Account"]), str(answer["Arn"]))
        return self._callers[key]

    def _owner(self) -> str | None:
        """Return the owner of the instances that EC2 shows: it shows no other account's."""
        for region in self._regions:
            try:
                answer = self._client(region, INSTANCES, MaxResults=_FEW)
            except CallFailed:
                continue
            for reservation in answer["Reservations"]:
                return str(reservation["OwnerId"])
        return None
