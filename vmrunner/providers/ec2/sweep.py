"""Sweeping: all that the account shows, region beside region."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from vmrunner.errors import Uncertain
from vmrunner.model import TAG, Kind, Page, Ref, Role, Scope
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.merge_iterators import merged, read_ahead
from vmrunner.providers.common.paging import pages
from vmrunner.providers.ec2.client import IMAGES, Answer, AnswerT, Ec2Api, Ec2Caller
from vmrunner.providers.ec2.describe_instances import apart, disrupted
from vmrunner.providers.ec2.resources import (
    BESIDE,
    LISTED,
    PAGE,
    Ec2KindReader,
    Ec2Nearness,
    snapshots,
)

#: Seconds for one region, and for one call of it: a region that is asked in vain for longer is not
#: asked for the other kinds, so that a dead one does not hold up what is seen elsewhere.
BUDGET, SLOW = 120.0, 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ec2SweepContext:
    """Inputs that every region's part of a sweep needs. `elapsed`: seconds that only go up."""

    client: Ec2Caller
    readers: Sequence[Ec2KindReader]
    installation: str
    near: Ec2Nearness
    now: Callable[[], float]
    elapsed: Callable[[], float]

    def sweep(self, scopes: Sequence[Scope]) -> Iterator[Page]:
        """Yield every page of every kind in every region; one that fails hinders no other."""
        return merged([partial(self._region, scope) for scope in scopes])

    def _region(self, scope: Scope) -> Iterator[Page]:
        """Yield the machines first, since what hangs on them dies after them; then all other kinds,
        which are read side by side from the first page of machines on: neither the pages nor the
        deletes of those are waited for."""
        builders: dict[str, Ref] = {}
        ask = _Budget(self.client, self.elapsed)
        (machines,) = (reader for reader in self.readers if reader.kind is Kind.INSTANCE)
        others = [
            partial(self._listed, ask, scope, reader)
            for reader in self.readers
            if reader is not machines
        ]
        with contextlib.ExitStack() as reading:
            beside: Iterator[Page] | None = None
            for page in self._listed(ask, scope, machines):
                beside = beside or reading.enter_context(read_ahead(others))
                builders |= {
                    r.instance: r.ref for r in page.resources if r.role is Role.IMAGE and r.instance
                }
                yield page
            for page in beside or ():
                yield _beside(page, builders) if page.kind in BESIDE else page

    def _listed(self, ask: Ec2Caller, scope: Scope, reader: Ec2KindReader) -> Iterator[Page]:
        failures: list[CallFailed] = []
        params = dict(reader.params)
        if reader.mine:
            own_tag = {"Name": f"tag:{TAG}installation", "Values": [self.installation]}
            params["Filters"] = [*params.get("Filters", ()), own_tag]

        def read(token: str | None) -> tuple[Sequence[Answer], str | None]:
            more: Answer = {} if reader.page is None else {"MaxResults": min(PAGE, reader.page)}
            if token is not None:
                more["NextToken"] = token
            try:
                answer = ask(scope.place, reader.api, **params, **more)
            except CallFailed as failed:
                if reader.nothing and failed.code == reader.nothing:
                    return (), None
                failures.append(failed)
                raise
            items = reader.items(answer)
            if reader.unused and items:
                images = ask(scope.place, IMAGES, Owners=["self"], IncludeDisabled=True)["Images"]
                used = {name for image in images for name in snapshots(image)}
                items = [item for item in items if item["SnapshotId"] not in used]
            return items, answer.get("NextToken") or None

        broken = False
        for page in self._pages(scope, reader, read):
            broken = page.error is not None and not page.resources
            yield page
        if broken and reader.kind is Kind.INSTANCE and disrupted(failures[-1]):
            yield from self._apart(ask, scope, reader)

    def _apart(self, ask: Ec2Caller, scope: Scope, reader: Ec2KindReader) -> Iterator[Page]:
        """Yield ours, as far as the zones can be read; the listing stays incomplete."""
        own_tag = {f"tag:{TAG}installation": [self.installation]}
        try:
            for part in apart(ask, scope.place, own_tag):
                living = [item for item in part.items if item["State"]["Name"] in LISTED]
                yield from self._pages(scope, reader, lambda _, items=living: (items, None))
                if part.failed is not None:
                    error = f"zone {part.zone}: {part.failed}"
                    yield Page(scope=scope, kind=reader.kind, error=error, time=self.now())
        except CallFailed as failed:
            error = f"zone by zone: {failed}"
            yield Page(scope=scope, kind=reader.kind, error=error, time=self.now())

    def _pages(self, scope: Scope, reader: Ec2KindReader, read: Any) -> Iterator[Page]:
        understand = partial(reader.make, scope)
        return pages(scope, reader.kind, read, lambda i: understand(i, self.near), self.now)


class _Budget:
    """One region's calls, of which none is made once its time is over."""

    def __init__(self, client: Ec2Caller, elapsed: Callable[[], float]) -> None:
        self._client = client
        self._elapsed = elapsed
        self._until = elapsed() + BUDGET
        self._over = ""

    def __call__(self, region: str, api: Ec2Api[AnswerT], **params: Any) -> AnswerT:
        began = self._elapsed()
        if began > self._until:
            self._over = self._over or f"{BUDGET:.0f} s are over"
        if self._over:
            text = f"{api.action} in {region}: not asked: {self._over}"
            raise CallFailed("", Uncertain(text))
        try:
            return self._client(region, api, **params)
        except CallFailed as failed:
            unanswered = not failed.code and isinstance(failed.error, Uncertain)
            if unanswered and self._elapsed() - began >= SLOW:
                self._over = str(failed)
            raise


def _beside(page: Page, builders: Mapping[str, Ref]) -> Page:
    """Give each thing the builder that it is for as its parent: it cannot go before that one."""
    found = (replace(r, parent=builders.get(r.instance or "")) for r in page.resources)
    return replace(page, resources=tuple(found))
