"""Looking at all that the project shows: one list a kind, for every zone and region in it.

A zone or region that could not be reached makes the listing incomplete there; what has no zone of
its own is told in the first of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from vmrunner.model import Kind, Page, Resource, Scope
from vmrunner.providers.common.failure import CallFailed
from vmrunner.providers.common.listing import patiently
from vmrunner.providers.gce import kinds
from vmrunner.providers.gce.calls import ADDRESSES, DISKS, INSTANCES, SNAPSHOTS, Api, Calls, pb
from vmrunner.providers.gce.kinds import Nearness
from vmrunner.providers.gce.look import PAGE, holes


@dataclass(frozen=True, slots=True)
class Reader:
    """How one kind is listed. `key`: where a scope's part of the answer has the items; None: it
    is one list, without scopes."""

    kind: Kind
    api: Api
    key: str | None
    make: Callable[[Scope, Any, Nearness], Resource | None]
    zonal: bool = True


READERS: Final = (
    Reader(Kind.INSTANCE, INSTANCES, "instances", kinds.instance),
    Reader(Kind.DISK, DISKS, "disks", kinds.disk),
    Reader(Kind.ADDRESS, ADDRESSES, "addresses", kinds.address, zonal=False),
    Reader(Kind.SNAPSHOT, SNAPSHOTS, None, kinds.snapshot, zonal=False),
)


@dataclass(slots=True)
class _Part:
    """What one answer says of one scope."""

    found: list[Resource] = field(default_factory=list)
    error: str | None = None


def sweep(
    calls: Calls, scopes: Iterable[Scope], near: Nearness, now: Callable[[], float]
) -> Iterator[Page]:
    """Every page of every kind; one that fails hinders no other."""
    mine = list(scopes)
    for reader in READERS if mine else ():
        yield from _listed(calls, mine, reader, near, now)


def _listed(
    calls: Calls, mine: list[Scope], reader: Reader, near: Nearness, now: Callable[[], float]
) -> Iterator[Page]:
    """What was found, scope by scope; then a last page for each of ours, and for each other in
    which something was, which says whether the whole of it was read."""
    scopes = {scope.place: scope for scope in mine}
    wrong: dict[str, str] = {}
    token = ""
    while True:
        try:
            answer = patiently(partial(_page, calls, reader, token))
        except CallFailed as failed:
            wrong[""] = str(failed)
            break
        for place, part in _parts(answer, reader, mine[0], near).items():
            if part.error is not None:
                wrong[place] = part.error
            if part.found:
                scope = scopes.setdefault(place, mine[0]._replace(place=place))
                found = tuple(part.found)
                yield Page(scope=scope, kind=reader.kind, resources=found, time=now(), more=True)
        token = answer.next_page_token
        if not token:
            break
    # What has no zone of its own could be anywhere.
    anywhere = wrong.get("") or (None if reader.zonal else next(iter(wrong.values()), None))
    for scope in scopes.values():
        error = wrong.get(scope.place) or anywhere
        yield Page(scope=scope, kind=reader.kind, error=error, time=now())


def _page(calls: Calls, reader: Reader, token: str) -> Any:
    asked: dict[str, Any] = {"max_results": PAGE, **({"page_token": token} if token else {})}
    return pb(calls(reader.api, **asked))


def _parts(answer: Any, reader: Reader, home: Scope, near: Nearness) -> dict[str, _Part]:
    """By zone; what has none is at home. "" is the answer as a whole."""
    parts: dict[str, _Part] = {}
    for name, why in holes(answer, scoped=reader.key is not None):
        place = kinds.last(name) if reader.zonal or not name else home.place
        parts.setdefault(place, _Part()).error = why
    if reader.key is None:
        _understand(parts, home, answer.items, reader, near)
        return parts
    for name, scoped in answer.items.items():
        place = kinds.last(name) if reader.zonal else home.place
        items = getattr(scoped, reader.key)
        _understand(parts, home._replace(place=place), items, reader, near)
    return parts


def _understand(
    parts: dict[str, _Part], scope: Scope, items: Iterable[Any], reader: Reader, near: Nearness
) -> None:
    """One item that cannot be understood takes nothing away but completeness."""
    part = parts.setdefault(scope.place, _Part())
    for item in items:
        try:
            resource = reader.make(scope, item, near)
        except (AttributeError, KeyError, TypeError, ValueError) as trouble:
            part.error = f"an item makes no sense: {type(trouble).__name__}: {trouble}"
        else:
            part.found += [resource] if resource is not None else []
