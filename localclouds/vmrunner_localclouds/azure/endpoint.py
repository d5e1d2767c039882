"""HTTP: a server of one cloud, which handles every request alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.azure import actions, operations, prices, routes, shapes
from vmrunner_localclouds.azure.api_error import ArmRefusal, Json, error_document, error_of
from vmrunner_localclouds.azure.faults import FailedLater
from vmrunner_localclouds.azure.operations import ArmAnswer
from vmrunner_localclouds.azure.requests import AzureRequest
from vmrunner_localclouds.azure.resource_ids import GALLERY, VM
from vmrunner_localclouds.azure.resources import SHAPES
from vmrunner_localclouds.common.faults import RequestFate
from vmrunner_localclouds.common.http_server import HttpAnswer
from vmrunner_localclouds.common.json_cloud import JsonEndpoint

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure

_JSON: Final = "application/json; charset=utf-8"
_CHECKED: Final = {VM: "VirtualMachine", f"{GALLERY}/images": "GalleryImage"} | {
    kind: shape for kind, (shape, _) in SHAPES.items()
}
_LOOKED_AT: Final = 3  # of a list


class AzureEndpoint(JsonEndpoint[AzureRequest, FailedLater]):
    name = "Microsoft-HTTPAPI/2.0"
    _cloud: LocalAzure

    def read(self, verb: str, target: str, headers: Mapping[str, str], body: bytes) -> AzureRequest:
        return AzureRequest.of(verb, target, headers, body)

    def pause(self, request: AzureRequest) -> None:
        if request.action == "operations.get":
            operations.pause(self._cloud, request)

    def refuse(self, fate: RequestFate) -> HttpAnswer:
        return self._failed(fate.status, error_of(fate.code, fate.message))

    def handle(self, request: AzureRequest, broken: FailedLater | None) -> HttpAnswer:
        try:
            return self._ask(request, broken)
        except ArmRefusal as refusal:
            if refusal.status == 400:
                self._cloud.rejected.append(f"{request.action}: {refusal.message}")
            error = error_of(refusal.code, refusal.message, refusal.target)
            return self._failed(refusal.status, error)

    def _failed(self, status: int, error: Json) -> HttpAnswer:
        again = {"Retry-After": str(self._cloud.throttle_seconds)} if status == 429 else {}
        return HttpAnswer(status, error_document(error), _JSON, again)

    def _ask(self, request: AzureRequest, broken: FailedLater | None) -> HttpAnswer:
        path = request.url.partition("?")[0]
        if path == prices.PATH:
            return _answer(ArmAnswer(200, prices.retail(self._cloud, request)))
        if path.startswith(actions.BLOBS):
            return HttpAnswer(200, actions.blob(self._cloud, request), "application/octet-stream")
        if not request.path.subscription:
            raise ArmRefusal(404, "NotFound", f"Azure has nothing there: {request.action}")
        routes.admit(self._cloud, request)
        self._cloud.rates.charge(self._cloud, request)
        answer = routes.find(request)(self._cloud, request, broken)
        for resource in (answer.body or {}).get("value", [answer.body])[:_LOOKED_AT]:
            _check(resource)
        return _answer(answer)


def _check(resource: Json | None) -> None:
    """Raises `Misshapen` when an answer is not what the client knows."""
    kind = (resource or {}).get("type", "")
    if kind in _CHECKED and "properties" in (resource or {}):
        shapes.check(resource, kind.partition("/")[0], _CHECKED[kind])


def _answer(answer: ArmAnswer) -> HttpAnswer:
    body = b"" if answer.body is None else json.dumps(answer.body).encode()
    return HttpAnswer(answer.status, body, _JSON, answer.headers)
