"""Deleting: the Job, and with it all that it owns; where that comes to nothing, the object itself.

Each delete names the uid that it means. The garbage collector of a cluster can be slow or off: what
is still there once its Job is gone, or was told to go a while ago, is deleted by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from vmrunner.model import Fate, Kind, Outcome, Ref
from vmrunner.providers.common.call_failed import CallFailed, tolerated
from vmrunner.providers.kubernetes import error_codes
from vmrunner.providers.kubernetes.client import CLAIMS, JOBS, PODS, SECRETS, ApiKind, KubeClient
from vmrunner.providers.kubernetes.labels import instance_id, split
from vmrunner.providers.kubernetes.states import condition, moment

JSON = Mapping[str, Any]

AT_ONCE: Final = 32
#: Seconds that the garbage collector gets before the object is deleted by itself.
COLLECTED_WITHIN: Final = 10.0
#: Seconds without a node's word after which it counts as gone.
NODE_SILENT: Final = 300.0
#: What the taint manager does once a node is silent for as long as a pod tolerates it.
_BY_TAINT: Final = "DeletionByTaintManager"
UNSEEN: Final = "not seen dead by its node"


class KubeDeleter:
    """Deletes in one namespace. `kinds`: those that an instance may be, the usual one first; `now`
    is the cluster's time."""

    def __init__(
        self, client: KubeClient, kinds: Sequence[ApiKind], now: Callable[[], float]
    ) -> None:
        self._client = client
        self._kinds = kinds
        self._now = now

    def delete(self, refs: Sequence[Ref], *, force: bool) -> dict[Ref, Outcome]:
        """Delete these, instances first, and return each one's outcome. `force`: they were to go
        before, and did not."""
        first = [ref for ref in refs if ref.kind is Kind.INSTANCE]
        others = [ref for ref in refs if ref.kind is not Kind.INSTANCE]
        outcomes: dict[Ref, Outcome] = {}
        for part in (first, others):
            if part:
                with ThreadPoolExecutor(min(AT_ONCE, len(part))) as pool:
                    results = pool.map(lambda ref: self._one(ref, force=force), part)
                    outcomes |= dict(zip(part, results, strict=True))
        return outcomes

    # --- within ---

    def _one(self, ref: Ref, *, force: bool) -> Outcome:
        name, uid = split(ref.id)
        try:
            if ref.kind is Kind.INSTANCE:
                return self._instance(name, ref.id, force=force)
            kind = {Kind.SCHEDULE: JOBS, Kind.SECRET: SECRETS, Kind.DISK: CLAIMS}.get(ref.kind)
            if kind is None:
                error = f"a {ref.kind.value} cannot be deleted here"
                return Outcome(fate=Fate.FAILED, error=error)
            found = self._deleted(kind, name, uid)
        except CallFailed as failed:
            return Outcome(fate=Fate.FAILED, error=str(failed))
        return Outcome(fate=Fate.MISSING if found is None else Fate.ACCEPTED)

    def _instance(self, name: str, ref: str, *, force: bool) -> Outcome:
        _, uid = split(ref)
        job = self._deleted(JOBS, name, uid)
        if job is not None and not self._is_late(job) and not force:
            return Outcome(fate=Fate.ACCEPTED)
        outcome = self._itself(name, ref, force=force)
        if outcome.fate is Fate.MISSING and job is not None:
            return Outcome(fate=Fate.ACCEPTED)
        return outcome

    def _is_late(self, job: JSON) -> bool:
        """True if a Job was told to go a while ago, and is still there."""
        since = moment((job.get("metadata") or {}).get("deletionTimestamp"))
        return since is not None and self._now() - since >= COLLECTED_WITHIN

    def _itself(self, name: str, ref: str, *, force: bool) -> Outcome:
        """Delete the VM or pod, if it is the one that is meant."""
        for kind in self._kinds:
            found: JSON | None = None
            with tolerated(error_codes.MISSING_KIND):
                found = self._client.get(kind, name)
            if found is None or instance_id(found["metadata"]) != ref:
                continue
            lost = force and kind.plural == PODS.plural and self._is_lost(found)
            uid = str(found["metadata"]["uid"])
            self._deleted(kind, name, uid, grace=0 if lost else None)
            return Outcome(fate=Fate.ACCEPTED, error=UNSEEN if lost else "")
        return Outcome(fate=Fate.MISSING)

    def _deleted(
        self, kind: ApiKind, name: str, uid: str, *, grace: int | None = None
    ) -> JSON | None:
        """The answer to a delete; None: nothing of this uid is there."""
        try:
            return self._client.delete(kind, name, uid, grace=grace)
        except CallFailed as failed:
            if error_codes.is_missing(failed) or error_codes.is_another(failed):
                return None
            raise

    def _is_lost(self, pod: JSON) -> bool:
        """True if its node was silent for so long that nobody will tell its end. Where nodes may
        not be read, the pod itself tells that it was given up."""
        node = str((pod.get("spec") or {}).get("nodeName") or "")
        if not node:
            return False
        try:
            shown = self._client.call("GET", f"/api/v1/nodes/{node}")
        except CallFailed as failed:
            if error_codes.is_missing(failed):
                return True
            return self._is_given_up(pod)
        ready = condition(shown.get("status") or {}, "Ready")
        silent = ready.get("status") == "Unknown"
        since = moment(ready.get("lastTransitionTime"))
        return silent and since is not None and self._now() - since >= NODE_SILENT

    def _is_given_up(self, pod: JSON) -> bool:
        found = condition(pod.get("status") or {}, "DisruptionTarget")
        since = moment(pod["metadata"].get("deletionTimestamp"))
        late = since is not None and self._now() - since >= NODE_SILENT
        return late and (found.get("status"), found.get("reason")) == ("True", _BY_TAINT)
