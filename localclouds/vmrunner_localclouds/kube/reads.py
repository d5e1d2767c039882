"""Reads: one object, or a list of them, over pages of one snapshot (apiserver
pkg/storage/etcd3/store.go and pkg/storage/continue.go of 1.34.2)."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Final, NamedTuple

from vmrunner_localclouds.kube import selectors
from vmrunner_localclouds.kube.api_error import Json, KubeRefusal, bad_request
from vmrunner_localclouds.kube.kinds import Kind
from vmrunner_localclouds.kube.requests import KubeRequest
from vmrunner_localclouds.kube.store import Key, key_of

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

_FORM: Final = "meta.k8s.io/v1"
_EXPIRED: Final = (
    "The provided continue parameter is too old to display a consistent list result. You can start "
    "a new list without the continue parameter, or use the continue token in this response to "
    "retrieve the remainder of the results. Continuing with the provided token results in an "
    "inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)


class _Token(NamedTuple):
    version: int  # of the snapshot; -1: of any, when the first one had become too old
    after: Key


def listed(cloud: LocalKube, kind: Kind, request: KubeRequest) -> Json:
    """A list as JSON. Raises `KubeRefusal`."""
    match = matcher(kind, request)
    limit = request.number("limit") or 0
    token = _token(request.option("continue"))
    version, found = _snapshot(cloud, kind, request, token, limit)
    if token is not None:
        found = [shown for shown in found if key_of(shown) > token.after]
    if request.namespace and kind.namespaced:
        found = [each for each in found if each["metadata"]["namespace"] == request.namespace]
    items: list[Json] = []
    seen = 0
    for shown in found:
        if limit and len(items) == limit:
            break
        seen += 1
        if match(shown):
            items.append(shown)
    metadata: Json = {"resourceVersion": str(version)}
    if seen < len(found):
        metadata["continue"] = _written(_Token(version, key_of(found[seen - 1])))
        if not request.option("labelSelector") and not request.option("fieldSelector"):
            metadata["remainingItemCount"] = len(found) - seen
    return {
        "kind": f"{kind.kind}List",
        "apiVersion": kind.group_version,
        "metadata": metadata,
        "items": items if kind.custom else [_bare(shown) for shown in items],
    }


def matcher(kind: Kind, request: KubeRequest) -> selectors.Match:
    """The selectors of a list or a watch. Raises `KubeRefusal`."""
    by_label = selectors.labels(request.option("labelSelector"))
    wanted = request.option("fieldSelector")
    if request.name:  # a watch of one object by its path
        wanted = f"metadata.name={request.name}"
    by_field = selectors.fields(wanted, kind)
    return lambda shown: by_label(shown) and by_field(shown)


def _snapshot(
    cloud: LocalKube, kind: Kind, request: KubeRequest, token: _Token | None, limit: int
) -> tuple[int, list[Json]]:
    store = cloud.store
    if token is not None:
        if request.option("resourceVersion") not in ("", "0"):
            raise bad_request("specifying resource version is not allowed when using continue")
        if token.version < 0:
            return store.version, store.snapshot(kind)
        kept = store.at(token.version, kind)
        if kept is None:
            again = _written(_Token(-1, token.after))
            raise KubeRefusal(410, _EXPIRED, details={"continue": again})
        return token.version, kept
    wanted = request.number("resourceVersion") or 0
    if wanted > store.version:
        text = f"Timeout: Too large resource version: {wanted}, current: {store.version}"
        raise KubeRefusal(504, text)
    if request.option("resourceVersionMatch") == "Exact" and wanted != store.version:
        kept = store.at(wanted, kind)
        if kept is None:
            raise KubeRefusal(
                410, f"The resourceVersion for the provided list is too old: {wanted}"
            )
        return wanted, kept
    return store.version, store.snapshot(kind) if limit else store.all(kind)


def _token(text: str) -> _Token | None:
    if not text:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        form, (namespace, _, name) = found["v"], found["start"].rstrip("\0").rpartition("/")
        token = _Token(int(found["rv"]), (namespace, name))
    except (binascii.Error, KeyError, TypeError, ValueError) as error:
        raise bad_request(f"continue key is not valid: {error}") from None
    if form != _FORM:
        raise bad_request(f"continue key is not valid: server does not recognize {form}")
    return token


def _written(token: _Token) -> str:
    namespace, name = token.after
    start = f"{namespace}/{name}\0" if namespace else f"{name}\0"
    text = json.dumps({"v": _FORM, "rv": token.version, "start": start})
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _bare(shown: Json) -> Json:
    """An object as a list has it: its kind is the list's."""
    return {key: value for key, value in shown.items() if key not in ("kind", "apiVersion")}
