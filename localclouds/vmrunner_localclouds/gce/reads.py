"""Calls that only read: get, list and aggregatedList of every kind of resource, page by page."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.gce import filters, links, quotas
from vmrunner_localclouds.gce.api_error import GceRefusal, invalid, not_found
from vmrunner_localclouds.gce.discovery import Json
from vmrunner_localclouds.gce.disks import newest
from vmrunner_localclouds.gce.faults import BrokenOperation
from vmrunner_localclouds.gce.requests import GceRequest
from vmrunner_localclouds.gce.vendor_limits import LIMITS

if TYPE_CHECKING:
    from vmrunner_localclouds.gce.cloud import LocalGce

#: Collection → what its items are called, and the parameter of a path that names one.
KINDS: Final = {
    "addresses": "address",
    "disks": "disk",
    "firewalls": "firewall",
    "images": "image",
    "instances": "instance",
    "machineTypes": "machineType",
    "networks": "network",
    "operations": "operation",
    "regions": "region",
    "snapshots": "snapshot",
    "subnetworks": "subnetwork",
    "zones": "zone",
}
#: Where resources of a kind can be; elsewhere it is zones.
_SCOPES: Final = {
    "addresses": ("global", "regions"),
    "disks": ("regions", "zones"),
    "operations": ("global", "regions", "zones"),
    "subnetworks": ("regions",),
}
_MOST: Final = int(LIMITS["items of a page"].value)

Place = tuple[str, str]  # scope, name


def get(cloud: LocalGce, request: GceRequest, _: BrokenOperation | None) -> Json:
    collection = collection_of(request.action)
    name = request.path[KINDS[collection]]
    scope = "global" if collection in ("zones", "regions") else request.scope
    if collection == "images":
        found = cloud.images(request.path["project"]).get(name)
    else:
        found = cloud.find(collection, scope, name)
    if found is None or found["selfLink"] in cloud.hidden:
        raise not_found(_relative(request, collection, name))
    return _dressed(cloud, collection, found)


def from_family(cloud: LocalGce, request: GceRequest, _: BrokenOperation | None) -> Json:
    project, family = request.path["project"], request.path["family"]
    found = newest(cloud, project, family)
    if found is None:
        raise not_found(f"projects/{project}/global/images/family/{family}")
    return found


def project(cloud: LocalGce, *_: object) -> Json:
    items = [{"key": key, "value": value} for key, value in cloud.common_metadata.items()]
    return {
        "kind": "compute#project",
        "id": cloud.number,
        "creationTimestamp": "2017-07-13T19:40:00.000-07:00",
        "name": cloud.project,
        "commonInstanceMetadata": {
            "kind": "compute#metadata",
            "fingerprint": "AAAAAAAAAAA=",
            **({"items": items} if items else {}),
        },
        "quotas": quotas.shown(cloud, ""),
        "selfLink": links.link(f"projects/{cloud.project}"),
        "defaultServiceAccount": f"{cloud.number}-compute@developer.gserviceaccount.com",
        "xpnProjectStatus": "UNSPECIFIED_XPN_PROJECT_STATUS",
        "defaultNetworkTier": "PREMIUM",
        "vmDnsSetting": "ZONAL_ONLY",
    }


def listed(cloud: LocalGce, request: GceRequest, _: BrokenOperation | None) -> Json:
    collection = collection_of(request.action)
    if collection == "images":
        shelf = cloud.images(request.path["project"])
    else:
        shelf = cloud.shelf(collection, request.scope)
    items, token = _page(cloud, request, {request.scope: shelf})
    where = f"projects/{request.path['project']}/{_where(request, collection)}"
    return {
        "kind": f"compute#{KINDS[collection]}List",
        "id": where,
        "selfLink": links.link(where),
        **(
            {"items": [_dressed(cloud, collection, resource) for _, resource in items]}
            if items
            else {}
        ),
        **({"nextPageToken": token} if token else {}),
    }


def aggregated(cloud: LocalGce, request: GceRequest, _: BrokenOperation | None) -> Json:
    """A section for every scope, on every page; those out of reach are named, and the answer is a
    success all the same, unless there are no `partial_lists`."""
    collection = collection_of(request.action)
    away = [scope for scope in _scopes(cloud, collection) if scope in cloud.unreachable]
    if away and not cloud.partial_lists:
        raise GceRefusal(503, "backendError", f"Cannot reach '{away[0]}'.")
    shelves = cloud.shelves(collection)
    items, token = _page(
        cloud, request, {s: shelf for s, shelf in shelves.items() if s not in cloud.unreachable}
    )
    sections: dict[str, Json] = {scope: {} for scope in _scopes(cloud, collection)}
    for scope, resource in items:
        sections[scope].setdefault(collection, []).append(_dressed(cloud, collection, resource))
    for scope, section in sections.items():
        if scope in cloud.unreachable:
            section["warning"] = _warning("UNREACHABLE", scope, f"Cannot reach '{scope}'.")
        elif not section:
            text = f"There are no results for scope '{scope}' on this page."
            section["warning"] = _warning("NO_RESULTS_ON_PAGE", scope, text)
    where = f"projects/{cloud.project}/aggregated/{collection}"
    return {
        "kind": f"compute#{KINDS[collection]}AggregatedList",
        "id": where,
        "items": sections,
        "selfLink": links.link(where),
        **({"nextPageToken": token} if token else {}),
        **(
            {"unreachables": [links.link(f"projects/{cloud.project}/{s}") for s in away]}
            if away
            else {}
        ),
    }


# --- pages ---------------------------------------------------------------------------------------


def _page(
    cloud: LocalGce, request: GceRequest, shelves: dict[str, dict[str, Json]]
) -> tuple[list[tuple[str, Json]], str]:
    """Scope and resource of each, and the token of the next page."""
    query = request.query
    if query.get("orderBy", "name") != "name":
        raise GceRefusal(501, "notImplemented", f"not in this cloud: orderBy {query['orderBy']}")
    most = int(query.get("maxResults", _MOST)) or _MOST
    if most > _MOST:
        text = f"Must be less than or equal to {_MOST}."
        raise invalid("maxResults", most, text)
    matches = filters.compiled(query["filter"]) if query.get("filter") else lambda _: True
    after = _read(query["pageToken"]) if query.get("pageToken") else ("", "")
    found: list[tuple[str, Json]] = []
    seen = 0
    last: Place = after
    for place, resource in _ordered(cloud, shelves, after):
        fits = matches(resource)
        if seen == most:
            return found, _write(last)
        if fits or cloud.sparse_pages:
            seen += 1
            last = place
        if fits:
            found.append((place[0], resource))
    return found, ""


def _ordered(
    cloud: LocalGce, shelves: dict[str, dict[str, Json]], after: Place
) -> Iterator[tuple[Place, Json]]:
    for scope in sorted(shelves):
        if scope < after[0]:
            continue
        shelf = shelves[scope]
        for name in sorted(shelf):
            if (scope, name) > after and shelf[name]["selfLink"] not in cloud.hidden:
                yield (scope, name), shelf[name]


def _write(place: Place) -> str:
    return base64.urlsafe_b64encode("\n".join(place).encode()).decode()


def _read(token: str) -> Place:
    try:
        scope, _, name = base64.urlsafe_b64decode(token).decode().partition("\n")
    except (binascii.Error, ValueError):
        raise invalid("pageToken", token, "The page token is invalid.") from None
    return scope, name


# --- within --------------------------------------------------------------------------------------


def collection_of(action: str) -> str:
    """`zoneOperations.list` is about operations, `globalAddresses.delete` about addresses."""
    name = action.partition(".")[0]
    if name.endswith("Operations"):
        return "operations"
    return "addresses" if name == "globalAddresses" else name


def _where(request: GceRequest, collection: str) -> str:
    if collection in ("zones", "regions"):
        return collection
    return f"{request.scope}/{collection}"


def _relative(request: GceRequest, collection: str, name: str) -> str:
    return f"projects/{request.path['project']}/{_where(request, collection)}/{name}"


def _scopes(cloud: LocalGce, collection: str) -> list[str]:
    scopes = []
    for kind in _SCOPES.get(collection, ("zones",)):
        shelf = cloud.shelf(kind, "global")
        scopes += [kind] if kind == "global" else [f"{kind}/{name}" for name in sorted(shelf)]
    return scopes


def _warning(code: str, scope: str, text: str) -> Json:
    return {"code": code, "message": text, "data": [{"key": "scope", "value": scope}]}


def _dressed(cloud: LocalGce, collection: str, found: Json) -> Json:
    """Add the fields that are computed at a read."""
    if collection == "regions":
        return found | {"quotas": quotas.shown(cloud, found["name"])}
    if collection == "zones" and f"zones/{found['name']}" in cloud.unreachable:
        return found | {"status": "DOWN"}
    return found
