"""Errors that the API server answers with, as `Status` documents (apimachinery
pkg/api/errors/errors.go)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

Json = dict[str, Any]

REASONS: Final[Mapping[int, str]] = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class Cause(NamedTuple):
    """One field that is refused: `spec.activeDeadlineSeconds`, a reason, and the words."""

    field: str
    reason: str
    message: str


class KubeRefusal(Exception):
    """Raised by whatever handles a request; the endpoint writes it."""

    def __init__(
        self, status: int, message: str, reason: str = "", *, details: Json | None = None
    ) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.reason = reason or REASONS.get(status, "")
        self.message = message
        self.details = details


def bad_request(message: str) -> KubeRefusal:
    return KubeRefusal(400, message)


def not_found(resource: str, name: str) -> KubeRefusal:
    """`resource` has its group: `jobs.batch`."""
    details = _details(resource, name)
    return KubeRefusal(404, f'{resource} "{name}" not found', details=details)


def exists(resource: str, name: str) -> KubeRefusal:
    text = f'{resource} "{name}" already exists'
    return KubeRefusal(409, text, "AlreadyExists", details=_details(resource, name))


def conflict(resource: str, name: str, why: str) -> KubeRefusal:
    text = f'Operation cannot be fulfilled on {resource} "{name}": {why}'
    return KubeRefusal(409, text, details=_details(resource, name))


def forbidden(resource: str, name: str, why: str) -> KubeRefusal:
    subject = f'{resource} "{name}" is forbidden' if name else f"{resource} is forbidden"
    return KubeRefusal(403, f"{subject}: {why}", details=_details(resource, name))


def invalid(kind: str, name: str, causes: Sequence[Cause]) -> KubeRefusal:
    """`kind` has its group: `Job.batch`."""
    messages = [f"{cause.field}: {cause.message}" for cause in causes]
    text = messages[0] if len(messages) == 1 else f"[{', '.join(messages)}]"
    details = _details(kind, name) | {"causes": [cause._asdict() for cause in causes]}
    return KubeRefusal(422, f'{kind} "{name}" is invalid: {text}', details=details)


def wrong(field: str, value: object, why: str) -> Cause:
    shown = f'"{value}"' if isinstance(value, str) else value
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown}: {why}")


def missing(field: str, why: str = "") -> Cause:
    return Cause(field, "FieldValueRequired", "Required value" + (f": {why}" if why else ""))


def banned(field: str, why: str) -> Cause:
    return Cause(field, "FieldValueForbidden", f"Forbidden: {why}")


def too_long(field: str, most: float) -> Cause:
    text = f"Too long: may not be more than {most:.0f} bytes"
    return Cause(field, "FieldValueTooLong", text)


def status_document(status: int, reason: str, message: str, details: Json | None = None) -> Json:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        **({"details": details} if details else {}),
        "code": status,
    }


def _details(resource: str, name: str) -> Json:
    kind, _, group = resource.partition(".")
    named = {"name": name} if name else {}
    return named | ({"group": group} if group else {}) | {"kind": kind}
