"""One request to the endpoint, as far as it must be understood: which service, which action, where,
by whom; and how each service writes its errors."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

Environ = dict[str, Any]

_CREDENTIAL: Final = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/aws4_request")
#: Services that say what they want by method and path: (method, path) → action.
_PATHS: Final = {
    "scheduler": (
        ("POST", r"/schedules/[^/]+", "CreateSchedule"),
        ("GET", r"/schedules/[^/]+", "GetSchedule"),
        ("DELETE", r"/schedules/[^/]+", "DeleteSchedule"),
        ("GET", r"/schedules", "ListSchedules"),
        ("POST", r"/schedule-groups/[^/]+", "CreateScheduleGroup"),
        ("GET", r"/schedule-groups/[^/]+", "GetScheduleGroup"),
        ("DELETE", r"/schedule-groups/[^/]+", "DeleteScheduleGroup"),
        ("GET", r"/schedule-groups", "ListScheduleGroups"),
    ),
    "lambda": (
        ("GET", r"/\d{4}-\d\d-\d\d/functions/[^/]+/configuration", "GetFunctionConfiguration"),
        ("GET", r"/\d{4}-\d\d-\d\d/tags/.+", "ListTags"),
        ("POST", r"/\d{4}-\d\d-\d\d/tags/.+", "TagResource"),
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ec2Request:
    """`params` is a query as it was sent (`InstanceId.1`, …), or a JSON body's top level."""

    service: str
    action: str
    region: str
    key: str  # the access key id
    params: Mapping[str, Any]

    @classmethod
    def of(cls, environ: Environ) -> Ec2Request:
        """Read the body, and put it back for the next reader."""
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body: bytes = environ["wsgi.input"].read(length)
        environ["wsgi.input"] = io.BytesIO(body)
        found = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
        key, region, service = found.groups() if found else ("", "", "")
        params = _params(environ, body)
        return cls(
            service=service,
            action=_action(environ, service, params),
            region=region,
            key=key,
            params=params,
        )

    def all(self, prefix: str) -> list[str]:
        """The values of a list in a query: `InstanceId.1`, `InstanceId.2`, …"""
        found: list[str] = []
        while (name := f"{prefix}.{len(found) + 1}") in self.params:
            found.append(self.params[name])
        return found


def _params(environ: Environ, body: bytes) -> Mapping[str, Any]:
    text = body.decode("utf-8", "replace")
    if "json" in environ.get("CONTENT_TYPE", "") and text:
        return dict(json.loads(text))
    query = "&".join(part for part in (environ.get("QUERY_STRING", ""), text) if part)
    return dict(parse_qsl(query, keep_blank_values=True))


def _action(environ: Environ, service: str, params: Mapping[str, Any]) -> str:
    if "Action" in params:
        return str(params["Action"])
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return str(target).rpartition(".")[2]
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    for wanted, pattern, action in _PATHS.get(service, ()):
        if method == wanted and re.fullmatch(pattern, path):
            return action
    return f"{method} {path}"


def error_document(service: str, code: str, message: str) -> tuple[str, bytes]:
    """The content type and the body of an error, in this service's own way."""
    if service == "ec2":
        text = (
            "<Response><Errors><Error>"
            f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
            "</Error></Errors><RequestID>local</RequestID></Response>"
        )
        return "text/xml", text.encode()
    if service in ("sts", "iam"):
        text = (
            "<ErrorResponse><Error><Type>Sender</Type>"
            f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
            "</Error><RequestId>local</RequestId></ErrorResponse>"
        )
        return "text/xml", text.encode()
    return "application/json", json.dumps({"__type": code, "message": message}).encode()
