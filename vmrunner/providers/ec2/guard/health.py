"""The guard's health: when it was last invoked without an error."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from vmrunner.model import Finding
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.findings import bad, ok, warning
from vmrunner.providers.ec2.error_codes import DENIED
from vmrunner.providers.ec2.guard.alarms import metric
from vmrunner.providers.ec2.guard.names import SCHEDULE, GuardSite
from vmrunner.providers.ec2.guard.part import api
from vmrunner.providers.ec2.guard.schedule import GET_SCHEDULE
from vmrunner.providers.port_guard import GUARD_INTERVAL, SILENCE

METRICS: Final = api("cloudwatch", "get_metric_data")
_DAY: Final = 86_400


def last_success(site: GuardSite, now: float) -> float | None:
    """The end of the last five minutes in which more was invoked than failed; None: not within a
    day. Raises `CallFailed`."""
    counts: dict[str, dict[float, float]] = {}
    told = site.call(
        METRICS,
        MetricDataQueries=[_count(site, name) for name in ("Invocations", "Errors")],
        StartTime=datetime.fromtimestamp(now - _DAY, UTC),
        EndTime=datetime.fromtimestamp(now + GUARD_INTERVAL, UTC),
    )
    for one in told["MetricDataResults"]:
        times = (time.timestamp() for time in one["Timestamps"])
        counts[one["Id"]] = dict(zip(times, one["Values"], strict=True))
    errors = counts.get("errors", {})
    well = [at for at, n in counts.get("invocations", {}).items() if n > errors.get(at, 0.0)]
    return min(max(well) + GUARD_INTERVAL, now) if well else None


def silent(site: GuardSite, now: float, success: float | None) -> bool:
    """True if the last success is too long ago, unless the guard was installed a moment ago. Raises
    `CallFailed`."""
    if success is not None:
        return now - success > SILENCE
    found = site.find(GET_SCHEDULE, GroupName=site.names.group, Name=SCHEDULE)
    made: Any = None if found is None else found.get("LastModificationDate")
    return not isinstance(made, datetime) or now - made.timestamp() > SILENCE


#: What is not ended without a guard, when vmrunner is gone: with a schedule for each VM, and else.
_ARMED: Final = (
    "nothing in the account ends a VM that was not armed when vmrunner was killed, or is protected,"
    " nor a disk or an address that is left"
)
_BARE: Final = (
    "nothing in the account ends a VM past its deadline when vmrunner is gone and the build became "
    "root"
)


def findings(site: GuardSite, provider: str, now: float, *, armed: bool) -> Iterator[Finding]:
    """Yield the guard's findings for `doctor`. `armed`: each VM has a schedule."""
    fix = f"vmrunner guard install {provider}"
    try:
        found = site.find(GET_SCHEDULE, GroupName=site.names.group, Name=SCHEDULE)
        if found is None or found.get("State") != "ENABLED":
            yield warning("guard", _ARMED if armed else _BARE, fix)
            return
        success = last_success(site, now)
        if silent(site, now, success):
            yield bad(
                "guard",
                f"it is installed, and no invocation succeeded in the last {SILENCE // 60} minutes",
                f"vmrunner guard status {provider}; its log is {site.names.log_group}",
            )
        else:
            yield ok("guard", f"{site.names.name} works")
    except CallFailed as failed:
        if failed.code not in DENIED:
            raise
        yield warning("guard", f"it cannot be told: {failed.error.args[0]}", failed.error.hint)


def _count(site: GuardSite, name: str) -> dict[str, Any]:
    stat = {"Metric": metric(site, name), "Period": GUARD_INTERVAL, "Stat": "Sum"}
    return {"Id": name.lower(), "MetricStat": stat, "ReturnData": True}
