"""Looking: at some machines by name, or at all that the account shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from vmrunner.model import TAG, Key, Kind, Page, Power, Ref, Role, Scope, Seen
from vmrunner.providers.common.batches import batches
from vmrunner.providers.common.failure import CallFailed
from vmrunner.providers.common.listing import pages
from vmrunner.providers.ec2.calls import INSTANCES, Answer, Calls
from vmrunner.providers.ec2.kinds import BESIDE, PAGE, Nearness, Reader, seen, tags

FILTER: Final = 200  # values, the most that one filter takes


def sweep(
    calls: Calls,
    readers: Sequence[Reader],
    scopes: Iterable[Scope],
    near: Nearness,
    now: Callable[[], float],
) -> Iterator[Page]:
    """Every page of every kind in every region; one that fails hinders no other."""
    for scope in scopes:
        builders: dict[str, Ref] = {}
        for reader in readers:
            for page in _listed(calls, scope, reader, near, now):
                if reader.kind is Kind.INSTANCE:
                    builders |= {
                        r.instance: r.ref
                        for r in page.resources
                        if r.role is Role.IMAGE and r.instance
                    }
                yield _beside(page, builders) if reader.kind in BESIDE else page


def _beside(page: Page, builders: Mapping[str, Ref]) -> Page:
    """With the builder that each thing is for as its parent: it cannot go before that one."""
    found = (replace(r, parent=builders.get(r.instance or "")) for r in page.resources)
    return replace(page, resources=tuple(found))


def _listed(
    calls: Calls, scope: Scope, reader: Reader, near: Nearness, now: Callable[[], float]
) -> Iterator[Page]:
    def read(token: str | None) -> tuple[Sequence[Answer], str | None]:
        more: Answer = {} if reader.page is None else {"MaxResults": min(PAGE, reader.page)}
        if token is not None:
            more["NextToken"] = token
        try:
            answer = calls(scope.place, reader.api, **reader.params, **more)
        except CallFailed as failed:
            if reader.nothing and failed.code == reader.nothing:
                return (), None
            raise
        return reader.items(answer), answer.get("NextToken") or None

    return pages(scope, reader.kind, read, lambda item: reader.make(scope, item, near), now)


def look(calls: Calls, keys: Sequence[Key], *, public: bool) -> dict[Key, Seen]:
    """By EC2's own id where it is known, else by ours in the tag. A filter takes what nobody
    knows for nothing, where a list of ids would be refused whole."""
    found: dict[Key, Seen] = {}
    for scope in dict.fromkeys(key.scope for key in keys):
        here = [key for key in keys if key.scope == scope]
        by_ref = {key.ref: key for key in here if key.ref is not None}
        by_name = {key.instance: key for key in here if key.ref is None}
        for item in filtered(calls, scope.place, "instance-id", list(by_ref)):
            found[by_ref[item["InstanceId"]]] = seen(scope, item, public=public)
        for item in filtered(calls, scope.place, f"tag:{TAG}instance", list(by_name)):
            key = by_name[tags(item)[f"{TAG}instance"]]
            sight = seen(scope, item, public=public)
            # Of several with one name, one that lives tells more than one that is dead.
            if key not in found or _rank(sight) < _rank(found[key]):
                found[key] = sight
    return found


def filtered(calls: Calls, region: str, name: str, values: Sequence[str]) -> Iterator[Answer]:
    """The instances, in whatever state, that one filter lets through."""
    for part in batches(values, FILTER):
        token: str | None = None
        while True:
            more: Answer = {"NextToken": token} if token else {}
            answer = calls(
                region,
                INSTANCES,
                Filters=[{"Name": name, "Values": list(part)}],
                MaxResults=PAGE,
                **more,
            )
            for reservation in answer["Reservations"]:
                yield from reservation["Instances"]
            token = answer.get("NextToken") or None
            if token is None:
                break


def _rank(sight: Seen) -> tuple[bool, float, str]:
    """Living first, then the oldest."""
    return (sight.power is Power.DEAD, sight.created_at or 0.0, sight.ref.id)
