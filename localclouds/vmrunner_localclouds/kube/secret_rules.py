"""Rules of Secrets (pkg/apis/core/validation/validation.go, `ValidateSecret`)."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from vmrunner_localclouds.kube.api_error import Cause, Json, banned, missing, too_long, wrong
from vmrunner_localclouds.kube.strategies import Strategy
from vmrunner_localclouds.kube.vendor_limits import limit

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

_DOCKER = "kubernetes.io/dockerconfigjson"


class SecretStrategy(Strategy):
    def fill(self, _: LocalKube, shown: Json) -> None:
        shown.setdefault("type", "Opaque")
        take_text(shown)

    def problems(self, shown: Json) -> list[Cause]:
        found: list[Cause] = []
        data = shown.get("data") or {}
        size = sum(len(base64.b64decode(value or "")) for value in data.values())
        if size > limit("bytes of a secret"):
            found.append(too_long("data", limit("bytes of a secret")))
        if shown.get("type") == _DOCKER and ".dockerconfigjson" not in data:
            found.append(missing("data[.dockerconfigjson]"))
        return found

    def update_problems(self, before: Json, shown: Json) -> list[Cause]:
        found: list[Cause] = []
        if before.get("type") != shown.get("type"):
            found.append(wrong("type", str(shown.get("type")), "field is immutable"))
        if before.get("immutable"):
            if not shown.get("immutable"):
                found.append(banned("immutable", "field is immutable when `immutable` is set"))
            if before.get("data") != shown.get("data"):
                found.append(banned("data", "field is immutable when `immutable` is set"))
        return found


def take_text(shown: Json) -> None:
    """Move `stringData`, which is only written, into `data`."""
    for key, value in (shown.pop("stringData", None) or {}).items():
        data = shown.setdefault("data", {})
        data[key] = base64.b64encode(value.encode()).decode()
