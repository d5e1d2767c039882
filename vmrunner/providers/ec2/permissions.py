"""The right to delete, known before anything is created.

Credentials that may launch and not terminate leave bills behind. So the right is asked for first:
by a policy simulation; where that cannot be had, by a dry run on the first machine that is created.
A denial stops launching, never reaping.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from vmrunner.model import TAG
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.clock import boottime
from vmrunner.providers.common.permissions import GRANTED, REFUSED, Right
from vmrunner.providers.ec2.client import ROLE, SIMULATE, TERMINATE, Answer, Ec2Client
from vmrunner.providers.ec2.error_codes import DENIED
from vmrunner.providers.ec2.identity import Caller, Ec2Identity
from vmrunner.providers.ec2.options import Ec2Options

#: Seconds until a question that got no answer is asked again.
UNKNOWN: Final = 600.0

ACTION: Final = "ec2:TerminateInstances"
#: IAM's word for a role that is not there.
NO_ROLE: Final = "NoSuchEntity"
#: What a dry run says of what would have been done.
WOULD: Final = "DryRunOperation"


class Ec2Permissions:
    """The knowledge of the right to terminate, in the region that launches. Thread-safe."""

    def __init__(
        self,
        options: Ec2Options,
        client: Ec2Client,
        identity: Ec2Identity,
        elapsed: Callable[[], float] = boottime,
    ) -> None:
        self._options = options
        self._client = client
        self._identity = identity
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._right: Right | None = None
        self._until = 0.0

    def demand(self) -> None:
        """Raises `CredentialsRefused` when it is known that we may not."""
        fix = f"allow {ACTION} to these credentials"
        self.ask().demand(self._options.name, "terminate", fix)

    def ask(self) -> Right:
        """Known answer, or else that of a simulation. Raises nothing."""
        with self._lock:
            if self._right is None or self._elapsed() >= self._until:
                self._learn(self.simulate())
            assert self._right is not None
            return self._right

    def born(self, instance: str) -> None:
        """A machine of ours exists: where nothing else could tell, this one does."""
        with self._lock:
            if self._right is not None and self._right.may is None:
                self._learn(self.dry_run(instance))

    def simulate(self, action: str = ACTION) -> Right:
        """Ask for the right by IAM's own reckoning, of instances of ours."""
        try:
            caller = self._identity.caller()
            source = _principal(caller)
            if source is None:
                return Right(may=True, why="the account's root may do everything")
            region, owner_tag = self._options.region, f"{TAG}installation"
            question: Answer = {
                "ActionNames": [action],
                "ResourceArns": [
                    f"arn:{caller.partition}:ec2:{region}:{caller.account}:instance/*"
                ],
                "ContextEntries": [
                    {
                        "ContextKeyName": key,
                        "ContextKeyValues": [self._options.installation],
                        "ContextKeyType": "string",
                    }
                    for key in (f"aws:ResourceTag/{owner_tag}", f"ec2:ResourceTag/{owner_tag}")
                ],
            }
            try:
                answer = self._client(region, SIMULATE, PolicySourceArn=source, **question)
            except CallFailed as failed:
                if failed.code != NO_ROLE or ":role/" not in source:
                    raise
                # A session does not tell its role's path: that of a role of SSO's has one.
                name = source.rpartition("/")[2]
                source = str(self._client(region, ROLE, RoleName=name)["Role"]["Arn"])
                answer = self._client(region, SIMULATE, PolicySourceArn=source, **question)
        except CallFailed as failed:
            return Right(may=None, why=str(failed))
        decisions = [str(result["EvalDecision"]) for result in answer.get("EvaluationResults", ())]
        if not decisions:
            return Right(may=None, why="the simulation said nothing")
        may = all(decision == "allowed" for decision in decisions)
        return Right(may=may, why=f"{action}: {', '.join(decisions)}")

    def dry_run(self, instance: str) -> Right:
        """Ask for the right by asking for the death of a real machine, without meaning it."""
        try:
            self._client(self._options.region, TERMINATE, InstanceIds=[instance], DryRun=True)
        except CallFailed as failed:
            if failed.code == WOULD:
                return Right(may=True, why="a dry run was let through")
            return Right(may=False if failed.code in DENIED else None, why=str(failed))
        return Right(may=None, why="a dry run was taken for a real one")

    def _learn(self, right: Right) -> None:
        self._right = right
        lasts = {True: GRANTED, False: REFUSED, None: UNKNOWN}
        self._until = self._elapsed() + lasts[right.may]


def _principal(caller: Caller) -> str | None:
    """ARN whose policies are to be simulated: a user, or the role behind a session. None: root."""
    kind, _, rest = caller.arn.split(":", 5)[5].partition("/")
    if kind == "assumed-role":
        return f"arn:{caller.partition}:iam::{caller.account}:role/{rest.partition('/')[0]}"
    return None if kind == "root" else caller.arn
