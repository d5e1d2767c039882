"""Looking at all that the groups show: one list a kind and group, of which each has its own place.

Interfaces are listed before addresses, which know their VM by them alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from vmrunner.model import Kind, Page, Scope
from vmrunner.providers.azure.client import (
    ADDRESSES,
    DISKS,
    INTERFACES,
    SNAPSHOTS,
    VMS,
    AzureApi,
    AzureClient,
)
from vmrunner.providers.azure.resources import GroupReader
from vmrunner.providers.common.merge_iterators import merged
from vmrunner.providers.common.paging import pages

#: Kind → how it is listed, and the reader of its items.
READERS: Final[Sequence[tuple[Kind, AzureApi, str]]] = (
    (Kind.INSTANCE, VMS, "instance"),
    (Kind.DISK, DISKS, "disk"),
    (Kind.INTERFACE, INTERFACES, "interface"),
    (Kind.ADDRESS, ADDRESSES, "address"),
    (Kind.SNAPSHOT, SNAPSHOTS, "snapshot"),
)


def sweep(
    calls: AzureClient, scopes: Sequence[Scope], installation: str, now: Callable[[], float]
) -> Iterator[Page]:
    """Yield every page of every kind, group beside group; one that fails hinders no other."""
    parts = [partial(_group, calls, scope, installation, now) for scope in scopes]
    return merged(parts) if parts else iter(())


def _group(
    calls: AzureClient, scope: Scope, installation: str, now: Callable[[], float]
) -> Iterator[Page]:
    reader = GroupReader(scope, installation)
    for kind, api, name in READERS:
        read = partial(calls.page, api, group=scope.place)
        yield from pages(scope, kind, read, getattr(reader, name), now)
