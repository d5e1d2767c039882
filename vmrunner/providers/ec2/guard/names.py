"""A guard's place, the names of its parts, and how they should be."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from vmrunner.model import MORTAL, TAG, Role
from vmrunner.providers.common.call_failed import CallFailed, tolerated
from vmrunner.providers.ec2.client import Answer, Ec2Api, Ec2Client
from vmrunner.providers.ec2.guard import documents
from vmrunner.providers.ec2.options import GROUP

#: The guard's own, in the group of the installation's schedules. Those of VMs: `vm-…`.
SCHEDULE: Final = "guard"
#: Seconds. With the five minutes between passes it stays below the 15 that are promised.
GUARD_GRACE: Final = 480
ANY: Final = "*"
ROLES: Final = "VMRUNNER_ROLES"  # the variable that tells whose VMs it ends

_MISSING: Final = frozenset(
    {
        "AWS.SimpleQueueService.NonExistentQueue",
        "NoSuchEntity",
        "QueueDoesNotExist",
        "ResourceNotFoundException",
    }
)
#: What was made or changed a moment ago is not known everywhere yet.
_SOON: Final = (
    "AWS.SimpleQueueService.QueueDeletedRecently",
    "InvalidParameterValueException",
    "QueueDeletedRecently",
    "ResourceConflictException",
    "ValidationException",
)
_SETTLE_TIMEOUT, _ROUND = 75.0, 3.0
pause: Final = time.sleep


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """The values from which all names and ARNs follow."""

    partition: str
    account: str
    region: str
    installation: str

    @property
    def name(self) -> str:
        """Return the name of function, role and queue."""
        return f"vmrunner-guard-{self.installation}"

    @property
    def schedule_role(self) -> str:
        return f"{self.name}-schedule"

    @property
    def deadline_role(self) -> str:
        """Return the name of the role for the schedules that end VMs: `scheduler_role` in the
        configuration."""
        return f"vmrunner-deadline-{self.installation}"

    @property
    def group(self) -> str:
        return GROUP + self.installation

    @property
    def log_group(self) -> str:
        return f"/aws/lambda/{self.name}"

    @property
    def function_arn(self) -> str:
        return self._arn("lambda", f"function:{self.name}")

    @property
    def queue_arn(self) -> str:
        return self._arn("sqs", self.name)

    def role_arn(self, role: str) -> str:
        return f"arn:{self.partition}:iam::{self.account}:role/{role}"

    @property
    def tags(self) -> dict[str, str]:
        return {f"{TAG}installation": self.installation, f"{TAG}role": Role.GUARD.value}

    def _arn(self, service: str, rest: str) -> str:
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{rest}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionSpec:
    """The function as it should be."""

    max_ttl: int
    regions: tuple[str, ...] = ()
    grace: int = GUARD_GRACE
    everyone: bool = False
    notify: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GuardSite:
    """One guard's place in one account."""

    client: Ec2Client
    names: Names
    plan: FunctionSpec

    def call(self, api: Ec2Api[Any], **params: Any) -> Answer:
        return self.client(self.names.region, api, **params)

    def find(self, api: Ec2Api[Any], **params: Any) -> Answer | None:
        """Make a call that finds one thing; None when there is no such thing."""
        with tolerated(_MISSING):
            return self.call(api, **params)
        return None

    def settle(self, api: Ec2Api[Any], **params: Any) -> Answer:
        """A call about what was just made: asked again while that is not known yet."""
        waited = 0.0
        while True:
            try:
                return self.call(api, **params)
            except CallFailed as failed:
                if failed.code not in _SOON or waited >= _SETTLE_TIMEOUT:
                    raise
            pause(_ROUND)
            waited += _ROUND

    @property
    def whose(self) -> str:
        return ANY if self.plan.everyone else self.names.installation

    @property
    def environment(self) -> dict[str, str]:
        """The function's."""
        return {
            "VMRUNNER_INSTALLATION": self.whose,
            "VMRUNNER_REGIONS": ",".join(self.plan.regions),
            "VMRUNNER_GRACE": str(self.plan.grace),
            "VMRUNNER_MAX_TTL": str(self.plan.max_ttl),
            ROLES: ",".join(role.value for role in MORTAL),
        }

    def policy(self, name: str) -> Answer:
        return documents.policy(
            name,
            partition=self.names.partition,
            account=self.names.account,
            region=self.names.region,
            installation=self.whose,
            name=self.names.name,
            scheduler_role=self.names.role_arn(self.names.deadline_role),
        )
