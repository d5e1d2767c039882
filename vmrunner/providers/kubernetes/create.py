"""Creating: the Job, its secret, then the VM or pod, each at most once.

Names are the tokens. What is there already is taken for ours where installation, generation and
order are; a crash between any two leaves what the Job ends at its deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vmrunner.errors import BadOrder, QuotaExceeded, Throttled, Uncertain
from vmrunner.model import Kind, Order, Ref
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.capacity_pools import DryPools, pool_of
from vmrunner.providers.kubernetes import bodies, error_codes
from vmrunner.providers.kubernetes.client import (
    CLAIMS,
    JOBS,
    PODS,
    SECRETS,
    VMIS,
    ApiKind,
    KubeClient,
)
from vmrunner.providers.kubernetes.labels import job_owner, same_order
from vmrunner.providers.kubernetes.options import KubernetesOptions

JSON = Mapping[str, Any]


class KubeCreator:
    """Launches in one namespace. `now` is the cluster's time."""

    def __init__(
        self,
        options: KubernetesOptions,
        client: KubeClient,
        dry: DryPools,
        now: Callable[[], float],
    ) -> None:
        self._options = options
        self._client = client
        self._dry = dry
        self._now = now

    def create(self, order: Order) -> Ref:
        """Raises `CallFailed`, `BadOrder` or `Uncertain`."""
        options = self._options
        # What can be refused is, before anything is born.
        bodies.secret(order, "", options)
        if options.runs == "pod":
            bodies.pod(order, "", options, self._now())
        try:
            uid = self._job(order)
            if options.volume is not None and options.runs == "vmi":
                self._child(CLAIMS, order, uid, lambda: bodies.claim(order, uid, options))
            self._child(SECRETS, order, uid, lambda: bodies.secret(order, uid, options))
            if options.runs == "pod":
                self._child(PODS, order, uid, lambda: bodies.pod(order, uid, options, self._now()))
            else:
                self._child(VMIS, order, uid, lambda: bodies.vmi(order, uid, options))
        except CallFailed as failed:
            self._dry.failed(pool_of(order.offer), failed)
            raise
        self._dry.clear(pool_of(order.offer))
        return Ref(order.offer.scope, Kind.INSTANCE, f"{order.instance}/{uid}")

    # --- within ---

    def _job(self, order: Order) -> str:
        """Uid of the order's Job, made now or before."""
        try:
            return str(self._client.create(JOBS, bodies.job(order, self._now()))["metadata"]["uid"])
        except CallFailed as failed:
            full = isinstance(failed.error, QuotaExceeded)  # of Jobs, this very one maybe
            if failed.code != "AlreadyExists" and not (full and self._is_born(JOBS, order, failed)):
                raise
        found = self._there(JOBS, order)
        if found["metadata"].get("deletionTimestamp"):
            raise BadOrder(f"{order.instance} exists, and is being deleted")
        return str(found["metadata"]["uid"])

    def _child(self, kind: ApiKind, order: Order, uid: str, body: Callable[[], JSON]) -> None:
        """Make one of the objects that the Job owns. One that is refused takes the Job with it:
        nothing is to stay of a birth that failed. A full quota refuses also what is there, of an
        order that is sent again: admission comes before the name is looked for."""
        try:
            self._client.create(kind, body())
        except CallFailed as failed:
            if isinstance(failed.error, Throttled):
                # The same order comes again, for which the Job stays: one that was told to go keeps
                # its name until a collector comes by.
                raise Uncertain(f"{failed}; its Job is there") from failed
            if failed.code == "AlreadyExists" or self._is_born(kind, order, failed):
                self._adopt(kind, order, uid)
                return
            if not isinstance(failed.error, Uncertain):
                self._clean_up(order, uid)
            raise

    def _is_born(self, kind: ApiKind, order: Order, failed: CallFailed) -> bool:
        """True if an object whose create was refused is there of an earlier one. Raises
        `Uncertain` when that cannot be told."""
        if isinstance(failed.error, Uncertain):
            return False
        try:
            self._client.get(kind, order.instance)
        except CallFailed as missing:
            if error_codes.is_missing(missing) or error_codes.is_unknown_kind(missing):
                return False
            raise Uncertain(f"{failed}; whether it is there: {missing}") from missing
        return True

    def _adopt(self, kind: ApiKind, order: Order, uid: str) -> None:
        found = self._there(kind, order)
        if job_owner(found["metadata"]) != uid:
            # It dies with the Job that it had; that it is gone, only looking can tell.
            raise Uncertain(f"{kind.plural} {order.instance} exists, of a Job that is gone")

    def _there(self, kind: ApiKind, order: Order) -> JSON:
        """The object of this name, if it is of this very order."""
        try:
            found = self._client.get(kind, order.instance)
        except CallFailed as failed:
            if error_codes.is_missing(failed):
                text = f"{kind.plural} {order.instance} exists, and is not there"
                raise Uncertain(text) from failed
            raise Uncertain(f"{kind.plural} {order.instance} exists: {failed}") from failed
        if not same_order(found, order):
            raise BadOrder(
                f"{kind.plural} {order.instance} exists, and is not of this order",
                hint="the namespace must be vmrunner's alone",
            )
        return found

    def _clean_up(self, order: Order, uid: str) -> None:
        """Delete what a birth left that was refused half way. Raises `Uncertain` when that cannot
        be told."""
        try:
            self._client.delete(JOBS, order.instance, uid)
        except CallFailed as failed:
            if not error_codes.is_missing(failed):
                raise Uncertain(f"what a failed birth left is not deleted: {failed}") from failed
