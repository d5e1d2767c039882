"""Looking at all that the project shows: one list a kind, for every zone and region in it.

A zone or region that could not be reached makes the listing incomplete there. Where the one list
fails as a whole, as it may while a zone is away, each of our zones is listed by itself, one beside
the other. What has no zone of its own is told in the first of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from vmrunner.errors import Uncertain
from vmrunner.model import Kind, Page, Resource, Scope
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.merge_iterators import merged
from vmrunner.providers.common.paging import pages, patiently
from vmrunner.providers.gce import resources
from vmrunner.providers.gce.client import (
    ADDRESSES,
    DISKS,
    IMAGES,
    INSTANCES,
    SNAPSHOTS,
    ZONE_DISKS,
    ZONE_INSTANCES,
    GceApi,
    GceClient,
    pb,
)
from vmrunner.providers.gce.describe import PAGE
from vmrunner.providers.gce.resources import GceNearness

#: Seconds that a zone's own list may take, and from which on a failure is silence: then the place
#: is not asked for the other kinds.
ZONE, SLOW = 15.0, 10.0


@dataclass(frozen=True, slots=True)
class GceKindReader:
    """The way to list one kind. `key`: where a scope's part of the answer has the items; None: it
    is one list, without scopes. `by_zone`: how one zone is; None: it has no zones."""

    kind: Kind
    api: GceApi
    key: str | None
    make: Callable[[Scope, Any, GceNearness], Resource | None]
    by_zone: GceApi | None = None

    @property
    def place(self) -> str:
        """Name what a silence of the one list is about."""
        return "all zones" if self.by_zone else "the project"


READERS: Final = (
    GceKindReader(Kind.INSTANCE, INSTANCES, "instances", resources.instance, ZONE_INSTANCES),
    GceKindReader(Kind.DISK, DISKS, "disks", resources.disk, ZONE_DISKS),
    GceKindReader(Kind.ADDRESS, ADDRESSES, "addresses", resources.address),
    GceKindReader(Kind.SNAPSHOT, SNAPSHOTS, None, resources.snapshot),
    GceKindReader(Kind.IMAGE, IMAGES, None, resources.image),
)


@dataclass(slots=True)
class _Part:
    """One answer's part about one scope."""

    found: list[Resource] = field(default_factory=list)
    error: str | None = None


@dataclass(kw_only=True, slots=True)
class GceSweep:
    """One sweep. `now` is the cloud's time, `elapsed` seconds that only pass."""

    client: GceClient
    scopes: Sequence[Scope]
    near: GceNearness
    now: Callable[[], float]
    elapsed: Callable[[], float]
    _silent: dict[str, str] = field(default_factory=dict)  # place → what was not answered

    def pages(self) -> Iterator[Page]:
        """Yield every page of every kind; one that fails hinders no other."""
        for reader in READERS if self.scopes else ():
            yield from self._listed(reader)

    # --- within ---

    def _listed(self, reader: GceKindReader) -> Iterator[Page]:
        """Yield what was found, scope by scope; then a last page for each scope of ours, and for
        each other in which something was, which says whether the whole of it was read."""
        launch_scope = self.scopes[0]
        scopes = {scope.place: scope for scope in self.scopes}
        wrong: dict[str, str] = {}
        token: str | None = None
        while token != "":
            try:
                answer = patiently(partial(self._page, reader.place, reader.api, token))
            except CallFailed as failed:
                wrong[""] = str(failed)
                if reader.by_zone and isinstance(failed.error, Uncertain):
                    yield from self._zone_by_zone(reader, reader.by_zone)
                    scopes = {p: scope for p, scope in scopes.items() if scope not in self.scopes}
                break
            for place, part in self._parts(answer, reader, launch_scope).items():
                if part.error is not None:
                    wrong[place] = part.error
                if part.found:
                    scope = scopes.setdefault(place, launch_scope._replace(place=place))
                    yield self._as_page(reader, scope, resources=tuple(part.found), more=True)
            token = answer.next_page_token
        # What has no zone of its own could be anywhere.
        some = None if reader.by_zone else next(iter(wrong.values()), None)
        for scope in scopes.values():
            error = wrong.get(scope.place) or wrong.get("") or some
            yield self._as_page(reader, scope, error=error)

    def _zone_by_zone(self, reader: GceKindReader, api: GceApi) -> Iterator[Page]:
        """Yield each of ours, as far as it answers."""
        return merged([partial(self._zone, reader, api, scope) for scope in self.scopes])

    def _zone(self, reader: GceKindReader, api: GceApi, scope: Scope) -> Iterator[Page]:
        def read(token: str | None) -> tuple[Sequence[Any], str | None]:
            where = {"zone": scope.place, "timeout": ZONE}
            answer = self._page(scope.place, api, token, **where)
            return answer.items, answer.next_page_token or None

        make = partial(reader.make, scope)
        return pages(scope, reader.kind, read, lambda item: make(item, self.near), self.now)

    def _as_page(self, reader: GceKindReader, scope: Scope, **more: Any) -> Page:
        return Page(scope=scope, kind=reader.kind, time=self.now(), **more)

    def _page(self, place: str, api: GceApi, token: str | None, **where: Any) -> Any:
        """Raises `CallFailed`, and at once where that place kept silent before."""
        if place in self._silent:
            raise CallFailed("", Uncertain(f"{place}: not asked again: {self._silent[place]}"))
        began = self.elapsed()
        query = {"max_results": PAGE, **where, **({"page_token": token} if token else {})}
        try:
            return pb(self.client(api, **query))
        except CallFailed as failed:
            unanswered = not failed.code and isinstance(failed.error, Uncertain)
            if unanswered and self.elapsed() - began >= SLOW:
                self._silent[place] = str(failed)
            raise

    def _parts(self, answer: Any, reader: GceKindReader, launch_scope: Scope) -> dict[str, _Part]:
        """Return the parts of an answer by zone; what has none is at home. "" is the answer as a
        whole."""
        parts: dict[str, _Part] = {}
        for name, why in holes(answer, scoped=reader.key is not None):
            place = resources.last(name) if reader.by_zone or not name else launch_scope.place
            parts.setdefault(place, _Part()).error = why
        if reader.key is None:
            self._understand(parts, launch_scope, answer.items, reader)
            return parts
        for name, scoped in answer.items.items():
            place = resources.last(name) if reader.by_zone else launch_scope.place
            self._understand(
                parts, launch_scope._replace(place=place), getattr(scoped, reader.key), reader
            )
        return parts

    def _understand(
        self, parts: dict[str, _Part], scope: Scope, items: Iterable[Any], reader: GceKindReader
    ) -> None:
        """One item that cannot be understood takes nothing away but completeness."""
        part = parts.setdefault(scope.place, _Part())
        for item in items:
            try:
                resource = reader.make(scope, item, self.near)
            except (AttributeError, KeyError, TypeError, ValueError) as trouble:
                part.error = f"an item makes no sense: {type(trouble).__name__}: {trouble}"
            else:
                part.found += [resource] if resource is not None else []


def holes(answer: Any, *, scoped: bool = True) -> Iterator[tuple[str, str]]:
    """Yield what one page of a list over all zones does not show, though it is a success: the zone
    or region (empty: any), and why. `scoped`: its items are by zone or region."""
    if _unread(answer.warning):
        yield "", answer.warning.message or answer.warning.code
    for name in getattr(answer, "unreachables", ()):
        yield name, f"{name} is unreachable"
    for name, part in answer.items.items() if scoped else ():
        if _unread(part.warning):
            yield name, f"{name}: {part.warning.message}"


def _unread(warning: Any) -> bool:
    """An empty scope carries a warning too, which is none."""
    return warning.code not in ("", "NO_RESULTS_ON_PAGE")
