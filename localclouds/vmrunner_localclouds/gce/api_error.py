"""Errors that the service answers with."""

from __future__ import annotations

import json
from typing import Any, Final

#: Reasons that are not of the domain `global`.
_USAGE: Final = frozenset(
    {"accessNotConfigured", "quotaExceeded", "rateLimitExceeded", "userRateLimitExceeded"}
)


class GceRefusal(Exception):
    """Raised by whatever handles a request; the endpoint writes it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


def invalid(field: str, value: object, message: str) -> GceRefusal:
    text = f"Invalid value for field '{field}': '{value}'. {message}"
    return GceRefusal(400, "invalid", text)


def not_found(what: str) -> GceRefusal:
    """`what` is relative: `projects/p/zones/z/instances/i`."""
    return GceRefusal(404, "notFound", f"The resource '{what}' was not found")


def exists(what: str) -> GceRefusal:
    return GceRefusal(409, "alreadyExists", f"The resource '{what}' already exists")


def not_ready(what: str) -> GceRefusal:
    return GceRefusal(400, "resourceNotReady", f"The resource '{what}' is not ready")


def error_document(status: int, reason: str, message: str) -> bytes:
    domain = "usageLimits" if reason in _USAGE else "global"
    detail: dict[str, Any] = {"message": message, "domain": domain, "reason": reason}
    return json.dumps(
        {"error": {"code": status, "message": message, "errors": [detail]}}, indent=1
    ).encode()
