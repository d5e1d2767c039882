"""The guard in one account: made, looked at, removed, part by part."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from vmrunner.errors import ConfigError, Conflict
from vmrunner.providers.common import guard_liveness
from vmrunner.providers.common.call_failed import CallFailed, edge
from vmrunner.providers.ec2.client import Ec2Client
from vmrunner.providers.ec2.guard import alarms, documents, health
from vmrunner.providers.ec2.guard.function import InvokeConfig, LambdaFunction
from vmrunner.providers.ec2.guard.names import (
    ANY,
    GUARD_GRACE,
    ROLES,
    FunctionSpec,
    GuardSite,
    Names,
)
from vmrunner.providers.ec2.guard.part import GuardElement, differing
from vmrunner.providers.ec2.guard.roles_and_queue import DeadLetterQueue, IamRole, LogGroup
from vmrunner.providers.ec2.guard.schedule import DeadlineRole, Schedule, ScheduleGroup
from vmrunner.providers.ec2.identity import Caller, Ec2Identity
from vmrunner.providers.ec2.options import Ec2Options
from vmrunner.providers.port_guard import (
    ROLES_ONCE,
    GuardPart,
    GuardSpec,
    GuardStatus,
    PartState,
    Policy,
)

_REGION: Final = re.compile(r"[a-z]{2,}(-[a-z0-9]+)+-\d+")
_TOPIC: Final = re.compile(r"arn:[\w-]+:[\w-]+:[\w-]*:\d*:.+")
#: Longer ago the grace is no grace any more.
_LONGEST_GRACE: Final = 86_400


class AccountGuard:
    """Lives in the region that launches; minds all regions of the account."""

    def __init__(
        self,
        options: Ec2Options,
        client: Ec2Client,
        identity: Ec2Identity,
        now: Callable[[], float],
    ) -> None:
        self._options = options
        self._client = client
        self._identity = identity
        self._now = now

    def install(self, spec: GuardSpec) -> Iterator[GuardPart]:
        with edge():
            check(spec)
            site = self._site(spec)
            LambdaFunction(site).own()
            for element in elements(site):
                yield _noted(site, _brought(element))

    def status(self, spec: GuardSpec) -> GuardStatus:
        with edge():
            site = self._site(spec, patient=False)
            parts = tuple(_noted(site, _seen(element)) for element in elements(site))
            now = self._now()
            try:
                success = health.last_success(site, now)
                silent = health.silent(site, now, success)
                parts = (*parts, _life(site, now))
            except CallFailed as failed:
                lost = GuardPart(
                    name="last success", id="", state=PartState.UNKNOWN, detail=str(failed.error)
                )
                return GuardStatus(parts=(*parts, lost), last_success=None, silent=True)
            return GuardStatus(parts=parts, last_success=success, silent=silent)

    def remove(self) -> Iterator[GuardPart]:
        with edge():
            site = self.site()
            LambdaFunction(site).own()
            for element in reversed(list(elements(site))):
                yield _removed(element)

    def policy(self, audience: Policy) -> str:
        partition = _partition(self._options.region)
        named = audience in (Policy.GUARD, Policy.VMRUNNER)
        account = (self._identity.quietly() if named else None) or ANY
        names = self._names(account, partition)
        document = documents.policy(
            audience.value,
            partition=partition,
            account=account,
            region=self._options.region,
            installation=self._options.installation,
            name=names.name,
            scheduler_role=self._options.scheduler_role or names.role_arn(names.deadline_role),
        )
        return json.dumps(document, indent=2)

    def roles(self) -> frozenset[str] | None:
        """Return the roles of what the installed function ends; None: there is none that passed
        of late."""
        with edge():
            site = self.site()
            found: Any = LambdaFunction(site).raw()
            if found is None or not guard_liveness.lives(health.last_pass(site), self._now()):
                return None
            roles = found.get("Environment", {}).get("Variables", {}).get(ROLES)
            return frozenset(roles.split(",")) if roles else ROLES_ONCE

    def site(self, plan: FunctionSpec | None = None) -> GuardSite:
        """Site of the guard. Raises `CallFailed` when the account cannot be told."""
        caller: Caller = self._identity.caller()
        names = self._names(caller.account, caller.partition)
        return GuardSite(self._client, names, plan or FunctionSpec(max_ttl=0))

    # --- within ---

    def _names(self, account: str, partition: str) -> Names:
        return Names(
            partition=partition,
            account=account,
            region=self._options.region,
            installation=self._options.installation,
        )

    def _site(self, spec: GuardSpec, *, patient: bool = True) -> GuardSite:
        """Site of the guard of `spec`; what that leaves open stays as it is."""
        bare = self.site()
        try:
            found: Any = LambdaFunction(bare).raw() or {}
            notified = self._notified(bare)
        except CallFailed:
            if patient:
                raise
            found, notified = {}, ()
        variables = found.get("Environment", {}).get("Variables", {})
        regions = tuple(name for name in variables.get("VMRUNNER_REGIONS", "").split(",") if name)
        grace = variables.get("VMRUNNER_GRACE", "")
        return self.site(
            FunctionSpec(
                max_ttl=int(spec.max_ttl),
                regions=regions if spec.regions is None else spec.regions,
                grace=int(grace) if grace.isdecimal() and spec.grace is None else _grace(spec),
                everyone=variables.get("VMRUNNER_INSTALLATION") == ANY
                if spec.everyone is None
                else spec.everyone,
                notify=notified if spec.notify is None else spec.notify,
            )
        )

    def _notified(self, site: GuardSite) -> tuple[str, ...]:
        answer = site.call(alarms.DESCRIBE, AlarmNames=[alarm.id for alarm in alarms.alarms(site)])
        found = answer.get("MetricAlarms", ())
        return tuple(dict.fromkeys(arn for alarm in found for arn in alarm.get("AlarmActions", ())))


def elements(site: GuardSite) -> Iterator[GuardElement]:
    """Yield the parts in the order in which they are made: each needs only those before it."""
    names = site.names
    yield DeadLetterQueue(site)
    yield LogGroup(site)
    yield IamRole(site, "role", names.name, "guard", trust="guard")
    yield IamRole(site, "schedule role", names.schedule_role, "schedule", trust="schedule")
    yield LambdaFunction(site)
    yield InvokeConfig(site)
    yield ScheduleGroup(site)
    yield Schedule(site)
    yield from alarms.alarms(site)
    yield DeadlineRole(site)


def check(spec: GuardSpec) -> None:
    """Raises `ConfigError` with the option, its value and the fix."""
    for region in spec.regions or ():
        if not _REGION.fullmatch(region):
            raise ConfigError(f"--region: {region!r}", hint="one such as eu-west-1, or all")
    if spec.grace is not None and not 0 <= spec.grace <= _LONGEST_GRACE:
        raise ConfigError(f"--grace: {spec.grace:g} s", hint="at most a day, such as 10m")
    for arn in spec.notify or ():
        if not _TOPIC.fullmatch(arn):
            raise ConfigError(f"--notify: {arn!r}", hint="the ARN of an SNS topic")


def _grace(spec: GuardSpec) -> int:
    return GUARD_GRACE if spec.grace is None else int(spec.grace)


def _partition(region: str) -> str:
    partitions = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
    return next((name for start, name in partitions.items() if region.startswith(start)), "aws")


def _brought(element: GuardElement) -> GuardPart:
    """Make it, or mend it, or leave it as it is."""
    found = element.look()
    if found is None:
        element.make()
        done = "made"
    elif keys := differing(element, found):
        element.mend(keys)
        done = f"changed: {', '.join(keys)}"
    else:
        done = ""
    return GuardPart(name=element.name, id=element.id, state=PartState.PRESENT, done=done)


def _seen(element: GuardElement) -> GuardPart:
    try:
        found = element.look()
    except CallFailed as failed:
        state, detail = PartState.UNKNOWN, str(failed.error)
    else:
        keys = [] if found is None else differing(element, found)
        state = PartState.ABSENT if found is None else PartState.PRESENT
        state, detail = (PartState.DIFFERS if keys else state), ", ".join(keys)
    return GuardPart(name=element.name, id=element.id, state=state, detail=detail)


def _life(site: GuardSite, now: float) -> GuardPart:
    """The last pass, as the function itself tells of it."""
    last = health.last_pass(site)
    at = "" if last is None else datetime.fromtimestamp(last, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    state, detail = PartState.PRESENT, ""
    if last is None and health.is_new(site, now):
        detail = "it was just installed"
    elif not guard_liveness.lives(last, now):
        state, detail = PartState.DIFFERS, guard_liveness.why_not(last, now)
    return GuardPart(name="last pass", id=at or "none", state=state, detail=detail)


def _noted(site: GuardSite, part: GuardPart) -> GuardPart:
    """Note of an alarm without a recipient: it is there, and of little use."""
    unheard = part.name.startswith("alarm") and not site.plan.notify
    if not unheard or part.detail or part.state is not PartState.PRESENT:
        return part
    return replace(part, detail="no recipient: --notify ARN")


def _removed(element: GuardElement) -> GuardPart:
    try:
        exists = element.look() is not None
        if exists:
            element.remove()
    except (CallFailed, Conflict) as failed:
        error = failed.error if isinstance(failed, CallFailed) else failed
        return GuardPart(
            name=element.name, id=element.id, state=PartState.PRESENT, detail=str(error)
        )
    done = "removed" if exists else ""
    return GuardPart(name=element.name, id=element.id, state=PartState.ABSENT, done=done)
