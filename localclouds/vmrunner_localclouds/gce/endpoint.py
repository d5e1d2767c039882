"""HTTP: a server of one cloud, which handles every request alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.common.faults import RequestFate
from vmrunner_localclouds.common.http_server import HttpAnswer
from vmrunner_localclouds.common.json_cloud import JsonEndpoint
from vmrunner_localclouds.gce import fieldmask, operations, routes, scheduler, validation
from vmrunner_localclouds.gce.api_error import GceRefusal, error_document
from vmrunner_localclouds.gce.faults import BrokenOperation
from vmrunner_localclouds.gce.requests import GceRequest, check

if TYPE_CHECKING:
    from vmrunner_localclouds.gce.cloud import LocalGce

_JSON: Final = "application/json; charset=UTF-8"


class GceEndpoint(JsonEndpoint[GceRequest, BrokenOperation]):
    name = "ESF"
    _cloud: LocalGce

    def read(self, verb: str, target: str, headers: Mapping[str, str], body: bytes) -> GceRequest:
        return GceRequest.of(verb, target, headers, body)

    def pause(self, request: GceRequest) -> None:
        if request.action.endswith("Operations.wait"):
            operations.pause(self._cloud, request)

    def refuse(self, fate: RequestFate) -> HttpAnswer:
        return _answer(fate.status, error_document(fate.status, fate.code, fate.message))

    def handle(self, request: GceRequest, broken: BrokenOperation | None) -> HttpAnswer:
        try:
            body = self._ask(request, broken)
            return _answer(200 if body else 204, body)
        except GceRefusal as refusal:
            return self.refuse(RequestFate(refusal.reason, refusal.status, refusal.message))

    def _ask(self, request: GceRequest, broken: BrokenOperation | None) -> bytes:
        method = request.method
        if method is None:
            return json.dumps(scheduler.answer(self._cloud, request)).encode()
        handler = routes.find(method.id)
        if handler is None:
            raise GceRefusal(501, "notImplemented", f"not in this cloud: {method.id}")
        try:
            check(request, method)
        except GceRefusal as refusal:
            self._cloud.rejected.append(f"{method.id}: {refusal.message}")
            raise
        routes.admit(self._cloud, request)
        earlier = operations.repeated(self._cloud, request)
        answer = handler(self._cloud, request, broken) if earlier is None else earlier
        if not method.response:
            return b""
        validation.check(answer, method.response, "answer")
        if request.fields:
            answer = fieldmask.only(answer, request.fields, method.response)
        return json.dumps(answer).encode()


def _answer(status: int, body: bytes) -> HttpAnswer:
    return HttpAnswer(status, body, _JSON)
