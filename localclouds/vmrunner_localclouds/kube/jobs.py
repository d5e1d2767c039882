"""Jobs: their rules (pkg/apis/batch/validation/validation.go, pkg/registry/batch/job/strategy.go of
1.34.2), and the controllers that end them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.kube import deletes, pod_rules, timestamps
from vmrunner_localclouds.kube.api_error import Cause, Json, wrong
from vmrunner_localclouds.kube.controllers import Controller
from vmrunner_localclouds.kube.kinds import JOBS
from vmrunner_localclouds.kube.store import Change
from vmrunner_localclouds.kube.strategies import Strategy, defaults
from vmrunner_localclouds.kube.vendor_limits import limit

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

_COUNTS: Final = (
    *("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit"),
    "ttlSecondsAfterFinished",
)
_FIXED: Final = ("completions", "selector", "template", "completionMode", "podFailurePolicy")


class JobStrategy(Strategy):
    orphans_by_default = True

    def fill(self, _: LocalKube, shown: Json) -> None:
        spec, metadata = shown["spec"], shown["metadata"]
        if spec.get("parallelism") is None and spec.get("completions") is None:
            spec["completions"] = 1
        defaults(
            spec,
            {
                "parallelism": 1,
                "backoffLimit": 6,
                "completionMode": "NonIndexed",
                "suspend": False,
                "podReplacementPolicy": "TerminatingOrFailed",
                "manualSelector": False,
            },
        )
        template = spec["template"]
        if not spec["manualSelector"]:
            uid = metadata["uid"]
            spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
            labels = template.setdefault("metadata", {}).setdefault("labels", {})
            for prefix in ("batch.kubernetes.io/", ""):
                labels[f"{prefix}controller-uid"] = uid
                labels[f"{prefix}job-name"] = metadata["name"]
        pod_rules.fill(template["spec"])
        shown["status"] = {}

    def problems(self, shown: Json) -> list[Cause]:
        spec = shown["spec"]
        text = "must be greater than or equal to 0"
        found = [
            wrong(f"spec.{field}", spec[field], text)
            for field in _COUNTS
            if (spec.get(field) or 0) < 0
        ]
        if len(shown["metadata"]["name"]) > limit("characters of a Job's name"):
            text = "must be no more than 63 characters"
            found.append(wrong("spec.template.labels", shown["metadata"]["name"], text))
        policy = spec["template"]["spec"].get("restartPolicy")
        if policy not in ("OnFailure", "Never"):
            words = 'supported values: "OnFailure", "Never"'
            text = 'Required value: valid values: "OnFailure", "Never"'
            if policy != "Always":
                text = f'Unsupported value: "{policy}": {words}'
            found.append(Cause("spec.template.spec.restartPolicy", "FieldValueNotSupported", text))
        return found + pod_rules.problems(spec["template"]["spec"], "spec.template.spec")

    def update_problems(self, before: Json, shown: Json) -> list[Cause]:
        return [
            wrong(f"spec.{field}", shown["spec"].get(field), "field is immutable")
            for field in _FIXED
            if shown["spec"].get(field) != before["spec"].get(field)
        ]


class JobController(Controller):
    """The deadline of a Job (pkg/controller/job/job_controller.go, `syncJob`,
    `pastActiveDeadline`). Its pods are not made: a Job here has `parallelism: 0`."""

    def _changed(self, change: Change) -> None:
        if change.kind is JOBS and change.type != "DELETED":
            before = change.before["spec"] if change.before else None
            if before != change.object["spec"]:
                uid = change.object["metadata"]["uid"]
                self.soon(lambda: self._sync(uid))

    def _sync(self, uid: str) -> None:
        job = self._of(uid)
        if job is None or finished(job) or job["spec"].get("suspend"):
            return
        if not job["status"].get("startTime"):
            status = {"startTime": timestamps.written(self._cloud.now()), "ready": 0}
            job = self._write(job, status | {"terminating": 0, "uncountedTerminatedPods": {}})
        seconds = job["spec"].get("activeDeadlineSeconds")
        if seconds is None:
            return
        due = timestamps.read(job["status"]["startTime"]) + seconds
        if due <= self._cloud.now():
            self._fail(job)
        else:
            # What is due is looked at again: the deadline may have been changed by then.
            self._cloud.later(due - self._cloud.now(), lambda: self._do(lambda: self._sync(uid)))

    def _fail(self, job: Json) -> None:
        at = timestamps.written(self._cloud.now())
        condition = {
            "status": "True",
            "lastProbeTime": at,
            "lastTransitionTime": at,
            "reason": "DeadlineExceeded",
            "message": "Job was active longer than specified deadline",
        }
        conditions = [{"type": "FailureTarget"} | condition, {"type": "Failed"} | condition]
        self._write(job, {**job["status"], "conditions": conditions})

    def _write(self, job: Json, status: Json) -> Json:
        return self._cloud.store.replace(JOBS, job, {**job, "status": status})


class TtlController(Controller):
    """Deletes finished Jobs (pkg/controller/ttlafterfinished/ttlafterfinished_controller.go)."""

    def _changed(self, change: Change) -> None:
        if change.kind is JOBS and change.type != "DELETED" and finished(change.object):
            self._arm(change.object)

    def _arm(self, job: Json) -> None:
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is None or "deletionTimestamp" in job["metadata"]:
            return
        seconds = timestamps.read(finished(job)) + ttl - self._cloud.now()
        uid = job["metadata"]["uid"]
        self.soon(lambda: self._delete(uid), max(seconds, 0.0))

    def _delete(self, uid: str) -> None:
        found = self._cloud.store.find(uid)
        if found is None or "deletionTimestamp" in found[1]["metadata"]:
            return
        job = found[1]
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is not None and timestamps.read(finished(job)) + ttl <= self._cloud.now():
            options = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
            deletes.delete(self._cloud, JOBS, job, options)


def finished(job: Json) -> str:
    """The time at which it failed or completed; empty: it goes on."""
    for condition in job.get("status", {}).get("conditions", ()):
        if condition["type"] in ("Failed", "Complete") and condition["status"] == "True":
            return str(condition["lastTransitionTime"])
    return ""
