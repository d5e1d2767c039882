"""Alarms: nothing of the guard is heard, or it fails."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from vmrunner.providers.ec2.client import Answer
from vmrunner.providers.ec2.guard.names import GuardSite
from vmrunner.providers.ec2.guard.part import api
from vmrunner.providers.port_guard import GUARD_INTERVAL, SILENCE

NAMESPACE: Final = "AWS/Lambda"
DESCRIBE: Final = api("cloudwatch", "describe_alarms")
#: Of so many periods, so many must fail before it rings.
FAILING, OF = 2, 3


class CloudWatchAlarm:
    """One alarm. Its recipients are compared only where the spec names some."""

    def __init__(self, site: GuardSite, name: str, rule: Answer) -> None:
        self._site = site
        self.name = f"alarm {name}"
        self.id = f"{site.names.name}-{name}"
        self._rule = rule

    def wanted(self) -> Answer:
        notify = list(self._site.plan.notify)
        return {"ActionsEnabled": True, "AlarmActions": notify, "Threshold": 1.0, **self._rule}

    def look(self) -> Answer | None:
        answer = self._site.call(DESCRIBE, AlarmNames=[self.id])
        for alarm in answer.get("MetricAlarms", ()):
            seen = {key: alarm.get(key) for key in self.wanted()}
            if "Metrics" in seen:
                seen["Metrics"] = sorted(map(_plain, seen["Metrics"] or ()), key=_id)
            return seen
        return None

    def make(self) -> None:
        tags = [{"Key": key, "Value": value} for key, value in self._site.names.tags.items()]
        self._site.call(
            api("cloudwatch", "put_metric_alarm"), AlarmName=self.id, Tags=tags, **self.wanted()
        )

    def mend(self, _: Collection[str]) -> None:
        self._site.call(api("cloudwatch", "put_metric_alarm"), AlarmName=self.id, **self.wanted())

    def remove(self) -> None:
        self._site.call(api("cloudwatch", "delete_alarms"), AlarmNames=[self.id])


def alarms(site: GuardSite) -> Iterator[CloudWatchAlarm]:
    yield CloudWatchAlarm(site, "silent", _silent(site))
    yield CloudWatchAlarm(site, "failing", _failing(site))


def _silent(site: GuardSite) -> Answer:
    """Return the alarm that no invocation succeeded for so long; it rings also where there is
    nothing that could."""
    succeeded = {"Id": "succeeded", "Expression": "invocations - errors", "ReturnData": True}
    counts = [_count(site, "Invocations"), _count(site, "Errors")]
    return {
        "AlarmDescription": "The guard that ends vmrunner's overdue VMs has not succeeded for "
        f"{SILENCE // 60} minutes: vmrunner guard status.",
        "ComparisonOperator": "LessThanThreshold",
        "EvaluationPeriods": SILENCE // GUARD_INTERVAL,
        "DatapointsToAlarm": SILENCE // GUARD_INTERVAL,
        "TreatMissingData": "breaching",
        "Metrics": sorted([succeeded, *counts], key=_id),
    }


def _failing(site: GuardSite) -> Answer:
    """Return the alarm that something cannot be read or ended."""
    return {
        **metric(site, "Errors"),
        "AlarmDescription": "The guard that ends vmrunner's overdue VMs cannot read or end "
        "something; its log says what.",
        "Statistic": "Sum",
        "Period": GUARD_INTERVAL,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "EvaluationPeriods": OF,
        "DatapointsToAlarm": FAILING,
        "TreatMissingData": "notBreaching",
    }


def _count(site: GuardSite, name: str) -> Answer:
    stat = {"Metric": metric(site, name), "Period": GUARD_INTERVAL, "Stat": "Sum"}
    return {"Id": name.lower(), "MetricStat": stat, "ReturnData": False}


def metric(site: GuardSite, name: str) -> Answer:
    """One of the function's own."""
    dimensions = [{"Name": "FunctionName", "Value": site.names.name}]
    return {"Namespace": NAMESPACE, "MetricName": name, "Dimensions": dimensions}


def _plain(metric: Answer) -> Answer:
    """A metric as it was asked for, without what the service adds."""
    kept: Answer = {key: metric[key] for key in ("Id", "Expression", "ReturnData") if key in metric}
    if "MetricStat" in metric:
        stat = metric["MetricStat"]
        names = ("Namespace", "MetricName", "Dimensions")
        kept["MetricStat"] = {
            "Metric": {key: stat["Metric"].get(key) for key in names},
            "Period": stat.get("Period"),
            "Stat": stat.get("Stat"),
        }
    return kept


def _id(metric: Answer) -> str:
    return str(metric["Id"])
