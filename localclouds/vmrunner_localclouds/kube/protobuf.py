"""Reviews in protobuf, which `kubectl` sends of kinds that it knows (apimachinery
pkg/runtime/serializer/protobuf; numbers of fields by k8s.io/api's generated.proto)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from vmrunner_localclouds.kube.api_error import Json, bad_request

CONTENT: Final = "application/vnd.kubernetes.protobuf"
_MAGIC: Final = b"k8s\0"

#: Number of a field → its name, and the fields of what is in it, where it is a message.
_Fields = Mapping[int, tuple[str, Any]]
_ATTRIBUTES: Final[_Fields] = dict(
    enumerate(
        [
            (name, None)
            for name in ("namespace", "verb", "group", "version", "resource", "subresource", "name")
        ],
        1,
    )
)
_PLACE: Final[_Fields] = {1: ("path", None), 2: ("verb", None)}
_SPECS: Final[Mapping[str, _Fields]] = {
    "SelfSubjectAccessReview": {
        1: ("resourceAttributes", _ATTRIBUTES),
        2: ("nonResourceAttributes", _PLACE),
    },
    "SelfSubjectRulesReview": {1: ("namespace", None)},
    "SelfSubjectReview": {},
    "TokenRequest": {4: ("expirationSeconds", None)},
}


def decoded(body: bytes) -> Json:
    """The object in a body. Raises `KubeRefusal` for a kind that is not known here."""
    if not body.startswith(_MAGIC):
        raise bad_request("provided data does not appear to be a protobuf message")
    envelope = dict(_fields(body[len(_MAGIC) :]))
    head = dict(_fields(envelope[1]))
    kind = head[2].decode()
    if kind not in _SPECS:
        raise bad_request(f"not in this cluster: {kind} as {CONTENT}")
    fields: _Fields = {2: ("spec", _SPECS[kind])}
    return {"apiVersion": head[1].decode(), "kind": kind, **_named(envelope.get(2, b""), fields)}


def _named(data: bytes, fields: _Fields) -> Json:
    found: Json = {}
    for number, value in _fields(data):
        if number in fields:
            name, inner = fields[number]
            if inner is not None:
                found[name] = _named(value, inner)
            else:
                found[name] = value.decode() if isinstance(value, bytes) else value
    return found


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a message: integers and bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
        elif tag & 7 == 2:
            size, at = _varint(data, at)
            yield tag >> 3, data[at : at + size]
            at += size
        else:
            raise bad_request(f"proto: illegal wireType {tag & 7}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data):
            raise bad_request("unexpected EOF")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
