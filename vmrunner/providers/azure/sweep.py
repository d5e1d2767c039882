"""Looking at all that the groups show: one list a kind and group, of which each has its own place.

Interfaces are listed before addresses, which know their VM by them alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from vmrunner.model import Kind, Page, Scope
from vmrunner.providers.azure import galleries
from vmrunner.providers.azure.client import (
    ADDRESSES,
    DISKS,
    IMAGES,
    INTERFACES,
    SNAPSHOTS,
    VMS,
    Answer,
    AzureApi,
    AzureClient,
)
from vmrunner.providers.azure.identity import is_gone
from vmrunner.providers.azure.resources import GroupReader
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.merge_iterators import merged
from vmrunner.providers.common.paging import pages

#: Kind → how it is listed, and the reader of its items.
READERS: Final[Sequence[tuple[Kind, AzureApi, str]]] = (
    (Kind.INSTANCE, VMS, "instance"),
    (Kind.DISK, DISKS, "disk"),
    (Kind.INTERFACE, INTERFACES, "interface"),
    (Kind.ADDRESS, ADDRESSES, "address"),
    (Kind.SNAPSHOT, SNAPSHOTS, "snapshot"),
    (Kind.IMAGE, IMAGES, "image"),
)
#: In place of a page's token: all managed images were read, and the gallery's follow.
_VERSIONS: Final = "versions"


def sweep(
    client: AzureClient, scopes: Sequence[Scope], installation: str, now: Callable[[], float]
) -> Iterator[Page]:
    """Yield every page of every kind, group beside group; one that fails hinders no other."""
    parts = [partial(_group, client, scope, installation, now) for scope in scopes]
    return merged(parts) if parts else iter(())


def _group(
    client: AzureClient, scope: Scope, installation: str, now: Callable[[], float]
) -> Iterator[Page]:
    reader = GroupReader(scope, installation)
    for kind, api, name in READERS:
        read = partial(_images if kind is Kind.IMAGE else _read, client, api, scope)
        yield from pages(scope, kind, read, getattr(reader, name), now)


def _images(
    client: AzureClient, api: AzureApi, scope: Scope, token: str | None
) -> tuple[Sequence[Answer], str | None]:
    """Return one page: managed images, and then all versions in the group's gallery as one page.
    Raises `CallFailed`."""
    if token != _VERSIONS:
        items, more = _read(client, api, scope, token)
        return items, more or _VERSIONS
    try:
        return [version for _, version in galleries.versions(client, scope.place)], None
    except CallFailed as failed:
        if is_gone(client, scope, failed):
            return (), None
        raise


def _read(
    client: AzureClient, api: AzureApi, scope: Scope, token: str | None
) -> tuple[Sequence[Answer], str | None]:
    """Return one page. Of a group that is not there it is the last, and empty: else the rows of a
    deleted group would stay open for ever. Raises `CallFailed`."""
    try:
        return client.page(api, token, group=scope.place)
    except CallFailed as failed:
        if token is None and is_gone(client, scope, failed):
            return (), None
        raise
