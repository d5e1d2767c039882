"""HTTP: a server of one cloud, which handles every request alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from email.utils import formatdate
from http.server import HTTPServer
from typing import TYPE_CHECKING, Final

from vmrunner.testing.common.http_server import HttpAnswer, LoopbackServer
from vmrunner.testing.common.service import HttpEndpoint
from vmrunner.testing.localgce import fieldmask, operations, routes, scheduler, validation
from vmrunner.testing.localgce.api_error import GceRefusal, error_document
from vmrunner.testing.localgce.faults import BrokenOperation
from vmrunner.testing.localgce.requests import GceRequest, check

if TYPE_CHECKING:
    from vmrunner.testing.localgce.cloud import LocalGce

log = logging.getLogger(__name__)

_JSON: Final = "application/json; charset=UTF-8"


class GceEndpoint(HttpEndpoint):
    """Starts and stops the server; decides what each request is told."""

    name = "ESF"

    def __init__(self, cloud: LocalGce) -> None:
        self._cloud = cloud

    def make(self, port: int) -> HTTPServer:
        return LoopbackServer(self, port)

    def date(self) -> str:
        """Return the date for the header of every answer."""
        return formatdate(self._cloud.now(), usegmt=True)

    def serve(
        self, verb: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> HttpAnswer | None:
        cloud, request = self._cloud, GceRequest.of(verb, target, headers, body)
        if request.action.endswith("Operations.wait"):
            operations.pause(cloud, request)
        answer = self._decided(request)
        if seconds := cloud.answer_seconds.get(request.action):
            cloud.sleep(seconds)
        return answer

    def _decided(self, request: GceRequest) -> HttpAnswer | None:
        cloud = self._cloud
        with cloud.lock:
            cloud.settle()
            cloud.requests.append(request)
            fate = cloud.plan(request)
            if fate is None or isinstance(fate, BrokenOperation):
                return self._handled(request, fate)
            if fate.happens:
                self._handled(request, None)
        if fate.garbage:
            return HttpAnswer(fate.status, fate.garbage, "text/html")
        if not fate.code:
            return None
        return _told(fate.status, error_document(fate.status, fate.code, fate.message))

    def _handled(self, request: GceRequest, broken: BrokenOperation | None) -> HttpAnswer:
        try:
            said = self._ask(request, broken)
            return _told(200 if said else 204, said)
        except GceRefusal as refusal:
            text = error_document(refusal.status, refusal.reason, refusal.message)
            return _told(refusal.status, text)
        except Exception as error:
            # Ours to mend, and no test may pass over it.
            log.exception("%s", request.action)
            self._cloud.complaints.append(f"{request.action}: {type(error).__name__}: {error}")
            return _told(500, error_document(500, "localGce", str(error)))

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
        said = handler(self._cloud, request, broken)
        if not method.response:
            return b""
        validation.check(said, method.response, "answer")
        if request.fields:
            said = fieldmask.only(said, request.fields, method.response)
        return json.dumps(said).encode()


def _told(status: int, body: bytes) -> HttpAnswer:
    return HttpAnswer(status, body, _JSON)
