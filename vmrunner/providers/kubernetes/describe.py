"""Looking at some VMs or pods, by name.

A list without a version is what the store holds: what is not in it is not there. So an instance
whose reference is known, and that is missing, is dead, if the namespace is still the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from vmrunner.model import MORTAL, TAG, Key, Kind, Power, Ref, Scope, Seen
from vmrunner.providers.common.call_failed import CallFailed, tolerated
from vmrunner.providers.kubernetes import error_codes, states
from vmrunner.providers.kubernetes.client import PODS, VMIS, ApiKind, KubeClient
from vmrunner.providers.kubernetes.events import SandboxWatch
from vmrunner.providers.kubernetes.identity import NamespaceIdentity
from vmrunner.providers.kubernetes.labels import PREFIX, instance_id, tags

JSON = Mapping[str, Any]

PAGE: Final = 500  # items of one page of a list
#: So many are asked for one by one; of more, one list tells.
SINGLY: Final = 3
#: … as long as a selector names them: a URL has its limits. Of more, all of ours are listed.
NAMED: Final = 100
_ROLES: Final = tuple(role.value for role in MORTAL)


class KubeDescriber:
    """Looks in one namespace. `kinds`: those that an instance may be, the usual one first."""

    def __init__(
        self,
        client: KubeClient,
        identity: NamespaceIdentity,
        installation: str,
        kinds: Sequence[ApiKind],
        now: Callable[[], float],
    ) -> None:
        self._client = client
        self._identity = identity
        self._installation = installation
        self._kinds = kinds
        self._now = now
        self._sandboxes = SandboxWatch(client, now)

    def look(self, keys: Sequence[Key]) -> dict[Key, Seen]:
        """Return all that can be seen, and what is known to be dead. Raises `CallFailed`."""
        scope = self._identity.scope()
        unmatched = {key.instance: key for key in keys if key.scope == scope}
        found: dict[Key, Seen] = {}
        by_labels = len(unmatched) > SINGLY
        self._match(scope, unmatched, found)
        lost = [key for key in unmatched.values() if key.ref is not None]
        if lost and by_labels:
            # A label is anybody's to change: nothing is dead because it lacks one.
            self._match(scope, {key.instance: key for key in lost}, found, whole=True)
            lost = [key for key in lost if key not in found]
        if lost:
            self._identity.confirm(scope)
        for key in lost:
            ref = Ref(scope, Kind.INSTANCE, str(key.ref))
            found[key] = Seen(ref=ref, power=Power.DEAD, detail="it is not there any more")
        return found

    # --- within ---

    def _match(
        self,
        scope: Scope,
        unmatched: dict[str, Key],
        found: dict[Key, Seen],
        *,
        whole: bool = False,
    ) -> None:
        """Move what is there from `unmatched` to `found`. `whole`: whatever its labels are."""
        for kind in self._kinds:
            # Another kind is there where the configuration was another.
            wanted = [key for key in unmatched.values() if key.ref or kind is self._kinds[0]]
            names = [key.instance for key in wanted]
            for item in self._items(kind, names, whole=whole) if wanted else ():
                key = unmatched.get(str(item["metadata"]["name"]))
                if key is None or not self._is(item, key):
                    continue
                del unmatched[key.instance]
                seen = seen_of(kind, scope, item, self._now())
                found[key] = self._sandboxes.explained(kind, item, seen)

    def _items(self, kind: ApiKind, names: Sequence[str], *, whole: bool) -> Iterator[JSON]:
        if len(names) <= SINGLY:
            yield from self._singly(kind, names)
            return
        selector = "" if whole else f"{PREFIX}installation={self._installation}"
        if not whole and len(names) <= NAMED:
            selector = f"{PREFIX}instance in ({','.join(sorted(names))})"
        yield from listed(self._client, kind, selector)

    def _singly(self, kind: ApiKind, names: Sequence[str]) -> Iterator[JSON]:
        for name in names:
            with tolerated(error_codes.MISSING_KIND):
                yield self._client.get(kind, name)

    def _is(self, item: JSON, key: Key) -> bool:
        """True if an object is the one that is meant: by its reference; before that is known, by
        what it is marked with, since a name proves nothing."""
        meta = item["metadata"]
        if key.ref is not None:
            return instance_id(meta) == key.ref
        own = tags(meta.get("labels") or {})
        ours = own.get(f"{TAG}installation") == self._installation
        return ours and own.get(f"{TAG}role") in _ROLES


def seen_of(kind: ApiKind, scope: Scope, item: JSON, now: float) -> Seen:
    """The view of an object of this kind."""
    if kind.plural == VMIS.plural:
        return states.vmi_seen(scope, item, now)
    return states.pod_seen(scope, item, now)


def listed(client: KubeClient, kind: ApiKind, selector: str) -> Iterator[JSON]:
    """Yield all items of one list, as `list_pages` does."""
    for items in list_pages(partial(client.page, kind), selector):
        yield from items


def list_pages(read: Callable[..., JSON], selector: str) -> Iterator[Sequence[JSON]]:
    """Yield the items of each page of one list, which `read` gets by a query. A token that is too
    old begins it again: who takes them must bear to see one twice. Raises `CallFailed`."""
    query = {"limit": str(PAGE), **({"labelSelector": selector} if selector else {})}
    token, again = "", 0
    while True:
        try:
            answer = read(**query, **({"continue": token} if token else {}))
        except CallFailed as failed:
            if error_codes.is_unknown_kind(failed):
                return
            if not error_codes.is_expired(failed) or again >= RESTARTS:
                raise
            token, again = "", again + 1
            continue
        yield answer.get("items") or ()
        token = str((answer.get("metadata") or {}).get("continue") or "")
        if not token:
            return


#: So often one list is begun again.
RESTARTS: Final = 3
KINDS_OF: Final = {"vmi": (VMIS, PODS), "pod": (PODS, VMIS)}
