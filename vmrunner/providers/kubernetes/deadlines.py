"""Lowering a deadline: of the Job, which a test in the very patch keeps from being raised, and of
the pod, whose own is never raised by the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vmrunner.model import Kind, Ref
from vmrunner.providers.common.call_failed import CallFailed, tolerated
from vmrunner.providers.kubernetes import error_codes
from vmrunner.providers.kubernetes.client import JOBS, JSON, PODS, ApiKind, KubeClient
from vmrunner.providers.kubernetes.labels import instance_id, split
from vmrunner.providers.kubernetes.states import moment

PATH: Final = "/spec/activeDeadlineSeconds"
#: Another may lower it at the same time: then it is read again.
TRIES: Final = 4


class DeadlineLowerer:
    """Lowers in one namespace. `now` is the cluster's time;."""

    def __init__(self, client: KubeClient, now: Callable[[], float]) -> None:
        self._client = client
        self._now = now

    def lower(self, ref: Ref, due: float) -> None:
        """Make an instance end at `due` at the latest. Raises `CallFailed`."""
        if ref.kind is not Kind.INSTANCE:
            return
        name, uid = split(ref.id)
        self._one(JOBS, name, due, lambda shown: shown["metadata"]["uid"] == uid)
        self._one(PODS, name, due, lambda shown: instance_id(shown["metadata"]) == ref.id)

    # --- within ---

    def _one(self, kind: ApiKind, name: str, due: float, is_meant: Callable[..., bool]) -> None:
        for last in range(TRIES, 0, -1):
            shown: JSON | None = None
            with tolerated(error_codes.MISSING):
                shown = self._client.get(kind, name)
            if shown is None or not is_meant(shown):
                return  # it is over, or has no deadline of its own
            present = (shown.get("spec") or {}).get("activeDeadlineSeconds")
            started = moment((shown.get("status") or {}).get("startTime"))
            # Both are counted from their start, which may not have come: then the deadline is
            # that much later, and what is lowered is lowered from now.
            begun = started if started is not None else self._now()
            seconds = max(1, int(due - begun))
            if not isinstance(present, int) or seconds >= present:
                return
            try:
                self._client.patch(
                    kind,
                    name,
                    [
                        {"op": "test", "path": "/metadata/uid", "value": shown["metadata"]["uid"]},
                        {"op": "test", "path": PATH, "value": present},
                        {"op": "replace", "path": PATH, "value": seconds},
                    ],
                    how="json-patch",
                )
            except CallFailed as failed:
                if error_codes.is_missing(failed):
                    return
                if last == 1 or failed.code not in ("Invalid", "Conflict", "422", "409"):
                    raise
                continue
            return
