"""Requests to an API server as calls through the port, and what goes wrong with those as what goes
wrong with these."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Final

from vmrunner_localclouds.kube import (
    FORBIDDEN,
    INTERNAL,
    QUOTA,
    THROTTLED,
    TIMEOUT,
    UNAVAILABLE,
    KubeRequest,
)
from vmrunner_localclouds.kube.faults import EXPIRED

from tests.faults.http_fates import fates, troubles
from vmrunner.model import Kind, Ref, Scope
from vmrunner.providers.fake import Call

LISTINGS: Final = (
    "virtualmachineinstances.list",
    "pods.list",
    "jobs.list",
    "secrets.list",
    "persistentvolumeclaims.list",
)
#: What ends something that a sweep shows.
DELETES: Final = MappingProxyType(
    {
        "jobs.delete": Kind.INSTANCE,
        "virtualmachineinstances.delete": Kind.INSTANCE,
        "pods.delete": Kind.INSTANCE,
        "secrets.delete": Kind.SECRET,
        "persistentvolumeclaims.delete": Kind.DISK,
    }
)
#: It makes the instance; what goes before it, and what is about others, goes by its own name.
CREATES: Final = ("virtualmachineinstances.create", "pods.create")
_LOOKS: Final = ("virtualmachineinstances.get", "pods.get")
FATES: Final = fates(
    internal=INTERNAL, throttled=THROTTLED, no_room=QUOTA, quota=QUOTA, denied=FORBIDDEN
)
TROUBLES: Final = troubles(INTERNAL, UNAVAILABLE, TIMEOUT, throttled=(THROTTLED,))
MORE: Final = MappingProxyType({"create": (QUOTA,), "sweep": (EXPIRED,)})


def asks(action: str) -> bool:
    return action.rpartition(".")[2] in ("get", "list") or action.startswith("selfsubject")


def call_of(request: KubeRequest, scope: Scope) -> Call:
    """As `HttpSide.call_of`."""
    action = request.action
    method, about = action, None
    if action in CREATES:
        method, about = "create", json.loads(request.body)["metadata"]["name"]
    elif action in DELETES:
        uid = json.loads(request.body)["preconditions"]["uid"]
        ref = Ref(scope, DELETES[action], f"{request.name}/{uid}")
        method, about = "delete", (ref,)
    elif action in LISTINGS and request.option("limit") and not _is_look(request):
        method, about = "sweep", request.option("continue") or None
    elif action in _LOOKS or (action in LISTINGS[:2] and _is_look(request)):
        method = "look"
    return Call(method, action, scope, about)


def _is_look(request: KubeRequest) -> bool:
    return request.option("labelSelector").startswith("vmrunner/")
