"""Looking at some VMs by name: one list a zone, whatever their number.

What was deleted is not shown as dead: it is not shown at all, and neither is a newborn that is not
visible yet. So of a VM that is known to have been there, and is not any more, the zone's operations
are asked: one that is done, without an error, and was its end, is a death that is seen. They tell
as well that a spot VM which stops is being taken back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from vmrunner.model import Key, Kind, Power, Ref, Scope, Seen
from vmrunner.providers.common.failure import CallFailed
from vmrunner.providers.gce import codes
from vmrunner.providers.gce.calls import GET, LIST, OPERATIONS, Calls, pb
from vmrunner.providers.gce.kinds import last, seen
from vmrunner.providers.gce.labels import label

PAGE: Final = 500  # items, the most that Compute Engine gives

#: Operations that are a VM's end, whoever asked for it.
_ENDS: Final = re.compile(r"delete|compute\.instances\.(preempted|.*[dD]elete.*)")
_PREEMPTED: Final = "compute.instances.preempted"
SPOT: Final = "SPOT"


def look(calls: Calls, keys: Sequence[Key], installation: str, *, public: bool) -> dict[Key, Seen]:
    """Raises `CallFailed`."""
    found: dict[Key, Seen] = {}
    for scope in dict.fromkeys(key.scope for key in keys):
        here = {key.instance: key for key in keys if key.scope == scope}
        stopping: dict[str, Key] = {}
        mine = f"labels.{label('installation')}={installation}"
        for item in listed(calls, LIST, zone=scope.place, filter=mine):
            key = here.pop(item.name, None)
            if key is not None:
                found[key] = seen(scope, item, public=public)
                if (
                    found[key].power is Power.STOPPING
                    and item.scheduling.provisioning_model == SPOT
                ):
                    stopping[item.name] = key
        lost = {name: key for name, key in here.items() if key.ref is not None}
        ended = _ended(calls, scope, {*lost, *stopping}) if lost or stopping else {}
        for name, key in stopping.items():
            if name in ended:
                found[key] = replace(found[key], preempted=ended[name].preempted)
        for name, key in lost.items():
            sight = ended.get(name) or _unlabelled(calls, scope, name, public=public)
            if sight is not None:
                found[key] = sight
    return found


def _unlabelled(calls: Calls, scope: Scope, name: str, *, public: bool) -> Seen | None:
    """One that is there, and has lost the label that it is listed by."""
    try:
        item = calls(GET, zone=scope.place, instance=name)
    except CallFailed as failed:
        if failed.code in codes.MISSING:
            return None
        raise
    return seen(scope, item, public=public)


def listed(calls: Calls, api: Any, **params: Any) -> Iterator[Any]:
    """All items of a list of one zone, page by page."""
    asked: dict[str, Any] = {"max_results": PAGE, **params}
    while True:
        page = pb(calls(api, **asked))
        yield from page.items
        if not page.next_page_token:
            return
        asked["page_token"] = page.next_page_token


def holes(answer: Any, *, scoped: bool = True) -> Iterator[tuple[str, str]]:
    """What one page of a list over all zones does not show, though it is a success: the zone or
    region (empty: any), and why. `scoped`: its items are by zone or region."""
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


def _ended(calls: Calls, scope: Scope, names: set[str]) -> dict[str, Seen]:
    """Those of them whose end is on record."""
    ended: dict[str, Seen] = {}
    for operation in listed(calls, OPERATIONS, zone=scope.place, filter='status = "DONE"'):
        name = last(operation.target_link)
        if name not in names or "/instances/" not in operation.target_link:
            continue
        preempted = operation.operation_type == _PREEMPTED
        if not _ENDS.fullmatch(operation.operation_type) or list(operation.error.errors):
            continue
        was = ended.get(name)
        ended[name] = Seen(
            ref=Ref(scope, Kind.INSTANCE, name),
            power=Power.DEAD,
            detail=operation.operation_type,
            preempted=preempted or bool(was and was.preempted),
        )
    return ended
