"""The guard's health: when it was last invoked without an error, and what it says of its last
pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from vmrunner.model import TAG, Finding
from vmrunner.providers.common import guard_liveness
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.findings import bad, ok, warning
from vmrunner.providers.ec2.error_codes import DENIED
from vmrunner.providers.ec2.guard.alarms import metric
from vmrunner.providers.ec2.guard.names import SCHEDULE, GuardSite
from vmrunner.providers.ec2.guard.part import api
from vmrunner.providers.ec2.guard.schedule import GET_SCHEDULE
from vmrunner.providers.port_guard import GUARD_INTERVAL, SILENCE

METRICS: Final = api("cloudwatch", "get_metric_data")
TAGS: Final = api("lambda", "list_tags")
_DAY: Final = 86_400


def last_success(site: GuardSite, now: float) -> float | None:
    """The end of the last five minutes in which more was invoked than failed; None: not within a
    day. Raises `CallFailed`."""
    counts: dict[str, dict[float, float]] = {}
    answer = site.call(
        METRICS,
        MetricDataQueries=[_count(site, name) for name in ("Invocations", "Errors")],
        StartTime=datetime.fromtimestamp(now - _DAY, UTC),
        EndTime=datetime.fromtimestamp(now + GUARD_INTERVAL, UTC),
    )
    for result in answer["MetricDataResults"]:
        times = (time.timestamp() for time in result["Timestamps"])
        counts[result["Id"]] = dict(zip(times, result["Values"], strict=True))
    errors = counts.get("errors", {})
    well = [at for at, n in counts.get("invocations", {}).items() if n > errors.get(at, 0.0)]
    return min(max(well) + GUARD_INTERVAL, now) if well else None


def last_pass(site: GuardSite) -> float | None:
    """Return the last pass that the function left as its own tag. Raises `CallFailed`."""
    found = site.find(TAGS, Resource=site.names.function_arn)
    tags: Any = {} if found is None else found.get("Tags") or {}
    return guard_liveness.last_pass(tags.get(f"{TAG}{guard_liveness.SIGN}"))


def silent(site: GuardSite, now: float, success: float | None) -> bool:
    """True if the last success is too long ago, unless the guard was installed a moment ago. Raises
    `CallFailed`."""
    if success is not None:
        return now - success > SILENCE
    return not is_new(site, now)


def is_new(site: GuardSite, now: float) -> bool:
    """True if the guard was installed a moment ago. Raises `CallFailed`."""
    found = site.find(GET_SCHEDULE, GroupName=site.names.group, Name=SCHEDULE)
    made: Any = None if found is None else found.get("LastModificationDate")
    return isinstance(made, datetime) and now - made.timestamp() <= SILENCE


#: What is not ended without a guard, when vmrunner is gone: with a schedule for each VM, and else.
_ARMED: Final = (
    "nothing in the account ends a VM that was not armed when vmrunner was killed, or is protected,"
    " nor a disk or an address that is left"
)
_BARE: Final = (
    "nothing in the account ends a VM past its deadline when vmrunner is gone and the build became "
    "root"
)


def findings(
    site: GuardSite, provider: str, clock: Callable[[], float], *, armed: bool
) -> Iterator[Finding]:
    """Yield the guard's findings for `doctor`. `clock`: the cloud's, which each answer makes surer.
    `armed`: each VM has a schedule."""
    fix = f"vmrunner guard install {provider}"
    try:
        found = site.find(GET_SCHEDULE, GroupName=site.names.group, Name=SCHEDULE)
        if found is None or found.get("State") != "ENABLED":
            yield warning("guard", _ARMED if armed else _BARE, fix)
            return
        last, success = last_pass(site), last_success(site, clock())
        now = clock()
        if silent(site, now, success):
            yield bad(
                "guard",
                f"it is installed, and no invocation succeeded in the last {SILENCE // 60} minutes",
                f"vmrunner guard status {provider}; its log is {site.names.log_group}",
            )
            return
        name = site.names.name
        if last is None and is_new(site, now):
            yield ok("guard", f"{name} was just installed: its first pass is due")
        else:
            more = f"; its log is {site.names.log_group}"
            yield guard_liveness.finding(name, last, now, fix + more)
    except CallFailed as failed:
        if failed.code not in DENIED:
            raise
        yield warning("guard", f"it cannot be told: {failed.error.args[0]}", failed.error.hint)


def _count(site: GuardSite, name: str) -> dict[str, Any]:
    stat = {"Metric": metric(site, name), "Period": GUARD_INTERVAL, "Stat": "Sum"}
    return {"Id": name.lower(), "MetricStat": stat, "ReturnData": True}
