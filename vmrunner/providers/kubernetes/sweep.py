"""Looking at all that the namespace holds, of any maker: one list a kind of object.

What is missing counts only where each list was read to its end, and the namespace is still the same
after: so the last page of each kind is held back until that is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from vmrunner.model import Kind, Page, Resource, Scope
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.paging import patiently
from vmrunner.providers.kubernetes import resources
from vmrunner.providers.kubernetes.client import (
    CLAIMS_META,
    JOBS_META,
    PODS,
    SECRETS,
    VMIS,
    ApiKind,
    KubeClient,
)
from vmrunner.providers.kubernetes.describe import list_pages
from vmrunner.providers.kubernetes.identity import NamespaceIdentity

JSON = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ObjectReader:
    """The way to list one kind of object."""

    kind: Kind
    api: ApiKind
    selector: str = ""


#: A VM of KubeVirt runs in a pod, which is none of ours. Pods are read in any configuration: the
#: former one may have started some.
READERS: Final = (
    ObjectReader(Kind.INSTANCE, VMIS),
    ObjectReader(Kind.INSTANCE, PODS, "kubevirt.io!=virt-launcher"),
    ObjectReader(Kind.SCHEDULE, JOBS_META),
    ObjectReader(Kind.SECRET, SECRETS),
    ObjectReader(Kind.DISK, CLAIMS_META),
)
KINDS: Final = tuple(dict.fromkeys(reader.kind for reader in READERS))


@dataclass(kw_only=True, slots=True)
class KubeSweep:
    """One sweep. `now` is the cluster's time."""

    client: KubeClient
    identity: NamespaceIdentity
    now: Callable[[], float]

    def pages(self) -> Iterator[Page]:
        """Yield every page of every kind; one that fails hinders no other. Raises ProviderError
        where it was never known which namespace this is: no page could say of what it is."""
        former = self.identity.quietly()
        try:
            scope = patiently(self.identity.read)
        except CallFailed as failed:
            if former is None:
                raise failed.error from failed
            for kind in KINDS:
                yield Page(scope=former, kind=kind, error=str(failed), time=self.now())
            return
        wrong: dict[Kind, str] = {}
        for reader in READERS:
            try:
                yield from self._listed(reader, scope)
            except CallFailed as failed:
                wrong[reader.kind] = str(failed)
        try:
            patiently(partial(self.identity.confirm, scope))
        except CallFailed as failed:
            wrong = dict.fromkeys(KINDS, str(failed))
        for kind in KINDS:
            yield Page(scope=scope, kind=kind, error=wrong.get(kind), time=self.now())

    # --- within ---

    def _listed(self, reader: ObjectReader, scope: Scope) -> Iterator[Page]:
        """Yield the pages of one list, each with `more`; one that is expired begins again."""

        def read(**query: str) -> JSON:
            return patiently(partial(self.client.page, reader.api, **query))

        for items in list_pages(read, reader.selector):
            yield self._page(reader, scope, items)

    def _page(self, reader: ObjectReader, scope: Scope, items: Any) -> Page:
        now = self.now()
        found: list[Resource] = []
        error: str | None = None
        for item in items:
            try:
                resource = self._understood(reader, scope, item, now)
            except (AttributeError, KeyError, TypeError, ValueError) as trouble:
                error = f"an item makes no sense: {type(trouble).__name__}: {trouble}"
            else:
                found += [resource] if resource is not None else []
        return Page(
            scope=scope, kind=reader.kind, resources=tuple(found), error=error, time=now, more=True
        )

    def _understood(
        self, reader: ObjectReader, scope: Scope, item: JSON, now: float
    ) -> Resource | None:
        if reader.kind is Kind.INSTANCE:
            return resources.instance(reader.api, scope, item, now)
        if reader.kind is Kind.SCHEDULE:
            return resources.job(scope, item)
        return resources.owned(reader.kind, scope, item)
