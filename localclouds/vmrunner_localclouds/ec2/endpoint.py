"""HTTP: what stands between a client and moto's own application."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import BaseWSGIServer, make_server

from vmrunner_localclouds.common.service import HOST, HttpEndpoint
from vmrunner_localclouds.ec2 import moto_patches, quotas, scheduler_api
from vmrunner_localclouds.ec2.api_error import Ec2Refusal
from vmrunner_localclouds.ec2.requests import Ec2Request, Environ, error_document

if TYPE_CHECKING:
    from vmrunner_localclouds.ec2.cloud import LocalCloud

log = logging.getLogger(__name__)


class Ec2Answer(NamedTuple):
    """`status` is a whole status line."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


class Ec2Endpoint(HttpEndpoint):
    """The server of one cloud; every request is handled alone."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._cloud = cloud
        self._moto = _Dispatcher(create_backend_app)

    def make(self, port: int) -> BaseWSGIServer:
        # Else moto makes hundreds of images in every region that is touched.
        os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        return make_server(HOST, port, self, threaded=True, request_handler=_Handler)

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        request = Ec2Request.of(environ)
        cloud = self._cloud
        with cloud.lock:
            cloud.settle()
            cloud.requests.append(request)
            answer = self._answer(request, environ)
        if answer is None:
            _hang_up(environ)
        headers = [(k, v) for k, v in answer.headers if k.lower() != "content-length"]
        start_response(answer.status, [*headers, ("Content-Length", str(len(answer.body)))])
        return [answer.body]

    def date(self) -> str:
        """The date for the header of every answer."""
        return formatdate(self._cloud.now(), usegmt=True)

    def _answer(self, request: Ec2Request, environ: Environ) -> Ec2Answer | None:
        """Answer a request; None when the client hears nothing."""
        trouble = self._cloud.plan(request)
        if trouble is None:
            return self._handled(request, environ)
        if trouble.happens:
            self._handled(request, environ)
        if trouble.garbage:
            return Ec2Answer(
                f"{trouble.status} OK", [("Content-Type", "text/html")], trouble.garbage
            )
        if not trouble.code:
            return None
        return _error(request, trouble.code, trouble.message, trouble.status)

    def _handled(self, request: Ec2Request, environ: Environ) -> Ec2Answer:
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = self._cloud.account_of(request.key)
        try:
            quotas.check_filters(request)
            if request.action == "ListSchedules":
                quotas.check_schedules(request)
            own = scheduler_api.answer(self._cloud, request)
            if own is not None:
                return Ec2Answer("200 OK", [("Content-Type", own[0])], own[1].encode())
            with moto_patches.within(self._cloud):
                return self._ask_moto(request.service, environ)
        except Ec2Refusal as refusal:
            return _error(request, refusal.code, refusal.message, refusal.status)
        except NotImplementedError as missing:
            return _error(request, "InvalidParameterValue", f"not in this cloud: {missing}", 400)
        except Exception as error:
            log.exception("%s", request.action)
            return _error(request, "InternalError", f"{type(error).__name__}: {error}", 500)

    def _ask_moto(self, service: str, environ: Environ) -> Ec2Answer:
        got: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *_: object) -> None:
            got[:] = [status, headers]

        parts = self._moto(environ, start)
        body = b"".join(parts)
        status, headers = got
        if service == "scheduler":  # moto calls its JSON a page of HTML
            headers = [(k, v) for k, v in headers if k.lower() != "content-type"]
            headers.append(("Content-Type", "application/json"))
        return Ec2Answer(status, headers, body)


def _error(request: Ec2Request, code: str, message: str, status: int) -> Ec2Answer:
    content, body = error_document(request.service, code, message)
    headers = [("Content-Type", content), ("x-amzn-ErrorType", code)]
    return Ec2Answer(f"{status} Refused", headers, body)


def _hang_up(environ: Environ) -> NoReturn:
    connection: socket.socket = environ["werkzeug.socket"]
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError  # for the server, which lets go of it


class _Dispatcher(DomainDispatcherApplication):
    """moto's, which reads the directory of its package at each request to find whose it is."""

    def __init__(self, create_app: Any) -> None:
        super().__init__(create_app)
        self._backends: dict[str | None, Any] = {}

    def get_backend_for_host(self, host: str | None) -> Any:
        if host not in self._backends:
            self._backends[host] = super().get_backend_for_host(host)
        return self._backends[host]


class _Handler(MotoRequestHandler):
    disable_nagle_algorithm = True
    wbufsize = -1

    def date_time_string(self, _: float | None = None) -> str:
        endpoint = self.server.app
        assert isinstance(endpoint, Ec2Endpoint)
        return endpoint.date()

    def log_request(self, *_: object) -> None:
        """Log nothing: it has no reader."""
