"""HTTP: a server of one cloud, which handles every request alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from email.utils import formatdate
from http.server import HTTPServer
from typing import TYPE_CHECKING, Final

from vmrunner.testing.common.faults import RequestFate
from vmrunner.testing.common.http_server import HttpAnswer, LoopbackServer
from vmrunner.testing.common.service import HttpEndpoint
from vmrunner.testing.localazure import actions, operations, prices, routes, shapes
from vmrunner.testing.localazure.api_error import (
    ArmRefusal,
    Json,
    error_document,
    error_of,
)
from vmrunner.testing.localazure.faults import FailedLater
from vmrunner.testing.localazure.operations import ArmAnswer
from vmrunner.testing.localazure.requests import AzureRequest
from vmrunner.testing.localazure.resource_ids import VM
from vmrunner.testing.localazure.resources import SHAPES

if TYPE_CHECKING:
    from vmrunner.testing.localazure.cloud import LocalAzure

log = logging.getLogger(__name__)

_JSON: Final = "application/json; charset=utf-8"
_CHECKED: Final = {VM: "VirtualMachine"} | {kind: shape for kind, (shape, _) in SHAPES.items()}
_LOOKED_AT: Final = 3  # of a list


class AzureEndpoint(HttpEndpoint):
    """Starts and stops the server; decides what each request is told."""

    name = "Microsoft-HTTPAPI/2.0"

    def __init__(self, cloud: LocalAzure) -> None:
        self._cloud = cloud

    def make(self, port: int) -> HTTPServer:
        return LoopbackServer(self, port)

    def date(self) -> str:
        """Return the date for the header of every answer."""
        return formatdate(self._cloud.now(), usegmt=True)

    def serve(
        self, verb: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> HttpAnswer | None:
        cloud, request = self._cloud, AzureRequest.of(verb, target, headers, body)
        if request.action == "operations.get":
            operations.pause(cloud, request)
        answer = self._decided(request)
        if seconds := cloud.answer_seconds.get(request.action):
            cloud.sleep(seconds)
        return answer

    def _decided(self, request: AzureRequest) -> HttpAnswer | None:
        cloud = self._cloud
        with cloud.lock:
            cloud.settle()
            cloud.requests.append(request)
            fate = cloud.plan(request)
            if fate is None or isinstance(fate, FailedLater):
                return self._handled(request, fate)
            if fate.happens:
                self._handled(request, None)
        if fate.garbage:
            return HttpAnswer(fate.status, fate.garbage, "text/html")
        if not fate.code:
            return None
        return _failed(fate.status, error_of(fate.code, fate.message), self._headers(fate))

    def _headers(self, fate: RequestFate) -> dict[str, str]:
        if fate.status == 429:
            return {"Retry-After": str(self._cloud.throttle_seconds)}
        return {}

    def _handled(self, request: AzureRequest, broken: FailedLater | None) -> HttpAnswer:
        try:
            return self._ask(request, broken)
        except ArmRefusal as refusal:
            if refusal.status == 400:
                self._cloud.rejected.append(f"{request.action}: {refusal.message}")
            error = error_of(refusal.code, refusal.message, refusal.target, refusal.details)
            return _failed(refusal.status, error)
        except Exception as error:
            # Ours to mend, and no test may pass over it.
            log.exception("%s", request.action)
            self._cloud.complaints.append(f"{request.action}: {type(error).__name__}: {error}")
            return _failed(500, error_of("LocalAzure", str(error)))

    def _ask(self, request: AzureRequest, broken: FailedLater | None) -> HttpAnswer:
        path = request.url.partition("?")[0]
        if path == prices.PATH:
            return _told(ArmAnswer(200, prices.retail(self._cloud, request)))
        if path.startswith(actions.BLOBS):
            return HttpAnswer(200, actions.blob(self._cloud, request), "application/octet-stream")
        if not request.path.subscription:
            raise ArmRefusal(404, "NotFound", f"Azure has nothing there: {request.action}")
        routes.admit(self._cloud, request)
        answer = routes.find(request)(self._cloud, request, broken)
        for one in (answer.body or {}).get("value", [answer.body])[:_LOOKED_AT]:
            _check(one)
        return _told(answer)


def _check(said: Json | None) -> None:
    """Raises `Misshapen` when an answer is not what the client knows."""
    kind = (said or {}).get("type", "")
    if kind in _CHECKED and "properties" in (said or {}):
        shapes.check(said, kind.partition("/")[0], _CHECKED[kind])


def _told(answer: ArmAnswer) -> HttpAnswer:
    body = b"" if answer.body is None else json.dumps(answer.body).encode()
    return HttpAnswer(answer.status, body, _JSON, answer.headers)


def _failed(status: int, error: Json, headers: Mapping[str, str] | None = None) -> HttpAnswer:
    return HttpAnswer(status, error_document(error), _JSON, headers or {})
