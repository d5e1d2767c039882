"""Looking at some VMs by name: one list a zone, whatever their number.

What was deleted is not shown as dead: it is not shown at all, and neither is a newborn that is not
visible yet. So of a VM that is known to have been there, and is not any more, the zone's operations
are asked: one that is done, without an error, and was its end, is a death that is seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from vmrunner.model import Key, Kind, Power, Ref, Seen
from vmrunner.providers.gce.calls import LIST, OPERATIONS, Calls, pb
from vmrunner.providers.gce.kinds import last, seen
from vmrunner.providers.gce.labels import label

PAGE: Final = 500  # items, the most that Compute Engine gives

#: Operations that are a VM's end, whoever asked for it.
_ENDS: Final = re.compile(r"delete|compute\.instances\.(preempted|.*[dD]elete.*)")
_PREEMPTED: Final = "compute.instances.preempted"


def look(calls: Calls, keys: Sequence[Key], installation: str, *, public: bool) -> dict[Key, Seen]:
    """Raises `CallFailed`."""
    found: dict[Key, Seen] = {}
    for scope in dict.fromkeys(key.scope for key in keys):
        here = {key.instance: key for key in keys if key.scope == scope}
        mine = f"labels.{label('installation')}={installation}"
        for item in listed(calls, LIST, zone=scope.place, filter=mine):
            key = here.pop(item.name, None)
            if key is not None:
                found[key] = seen(scope, item, public=public)
        lost = {name: key for name, key in here.items() if key.ref is not None}
        if lost:
            found |= {lost[name]: end for name, end in _ended(calls, lost).items()}
    return found


def listed(calls: Calls, api: Any, **params: Any) -> Iterator[Any]:
    """All items of a list of one zone, page by page."""
    asked: dict[str, Any] = {"max_results": PAGE, **params}
    while True:
        page = pb(calls(api, **asked))
        yield from page.items
        if not page.next_page_token:
            return
        asked["page_token"] = page.next_page_token


def _ended(calls: Calls, lost: dict[str, Key]) -> dict[str, Seen]:
    """Those of them whose end is on record."""
    scope = next(iter(lost.values())).scope
    ended: dict[str, Seen] = {}
    for operation in listed(calls, OPERATIONS, zone=scope.place, filter='status = "DONE"'):
        name = last(operation.target_link)
        if name not in lost or "/instances/" not in operation.target_link:
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
