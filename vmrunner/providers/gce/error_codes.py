"""Google's errors in the core's terms: translated once, here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from google.api_core import exceptions as api
from google.auth import exceptions as auth

from vmrunner.errors import (
    BadOrder,
    CredentialsRefused,
    NoCapacity,
    ProviderError,
    QuotaExceeded,
    Throttled,
    Uncertain,
)
from vmrunner.providers.common.call_failed import CallFailed, is_undecided, one_line

#: Of requests (camelCase) and of operations (UPPER_CASE).
CAPACITY: Final = frozenset(
    {
        "ZONE_RESOURCE_POOL_EXHAUSTED",
        "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
        "RESOURCE_POOL_EXHAUSTED",
        "STOCKOUT",
        # The subnetwork has no address left: another zone's, or another day. As on EC2.
        "IP_SPACE_EXHAUSTED",
        "IP_SPACE_EXHAUSTED_WITH_DETAILS",
        "UNSUPPORTED_OPERATION",  # this type is not to be had in this zone
        "resourcePoolExhausted",
    }
)
QUOTA: Final = frozenset({"QUOTA_EXCEEDED", "LIMIT_EXCEEDED", "quotaExceeded", "limitExceeded"})
THROTTLED: Final = frozenset(
    {
        "RATE_LIMIT_EXCEEDED",
        "CONCURRENT_OPERATIONS_QUOTA_EXCEEDED",
        "dailyLimitExceeded",
        "rateLimitExceeded",
        "userRateLimitExceeded",
    }
)
DENIED: Final = frozenset({"PERMISSIONS_ERROR", "forbidden", "insufficientPermissions"})
NO_API: Final = frozenset({"accessNotConfigured", "SERVICE_DISABLED"})
#: What may come out otherwise another time.
UNSURE: Final = frozenset({"INTERNAL_ERROR", "RESOURCE_OPERATION_RATE_EXCEEDED", "backendError"})
MISSING: Final = frozenset({"notFound", "RESOURCE_NOT_FOUND"})
EXISTS: Final = frozenset({"alreadyExists", "RESOURCE_ALREADY_EXISTS"})

ENABLE: Final = "gcloud services enable compute.googleapis.com"
#: How the SDK refuses a request that it cannot write: nothing was asked.
_NO_FIELD: Final = "Unknown field for"
_UPGRADE: Final = "pip install --upgrade 'vmrunner[gcp]'"
_LOG_IN: Final = "gcloud auth application-default login, or a service account for this machine"


def failed(error: Exception, *, action: str, where: str) -> CallFailed:
    """Translate what the SDK raised for `action` at `where`."""
    if isinstance(error, api.GoogleAPICallError):
        reasons = [str(e["reason"]) for e in error.errors if isinstance(e, dict) and "reason" in e]
        status = int(error.code or 0)
        code = _first(reasons) or _by_status(status)
        return CallFailed(code, refusal(code, error.message, status, action=action, where=where))
    return CallFailed("", _unanswered(error, action=action, where=where))


def of_operation(operation: Any, *, action: str, where: str) -> CallFailed | None:
    """Translate what a finished operation ended with; None when all is well."""
    errors = list(operation.error.errors)
    status = int(operation.http_error_status_code)
    if not errors and status < 400:
        return None
    code = _first([str(error.code) for error in errors]) or _by_status(status)
    message = "; ".join(str(error.message) for error in errors) or operation.http_error_message
    return CallFailed(code, refusal(code, message, status, action=action, where=where))


def refusal(code: str, message: str, status: int, *, action: str, where: str) -> ProviderError:
    """An error answer, in the core's words."""
    text = f"{action} in {where}: {code or status}: {one_line(message)}"
    if code in CAPACITY:
        return NoCapacity(text)
    if code in QUOTA:
        return QuotaExceeded(text, hint="raise the project's quota, or run fewer at once")
    if code in THROTTLED or status == 429:
        return Throttled(text)
    if code in NO_API:
        return CredentialsRefused(text, hint=ENABLE)
    if code in DENIED or status == 403:
        return CredentialsRefused(text, hint=f"allow compute.{action} to these credentials")
    if status == 401:
        return CredentialsRefused(text, hint=_LOG_IN)
    if is_undecided(status) or code in UNSURE or not code:
        return Uncertain(text)
    return BadOrder(text)


def _first(codes: Sequence[str]) -> str:
    """The one that says most: some are only company."""
    telling = (c for c in codes if c in CAPACITY | QUOTA | THROTTLED | NO_API)
    return next(telling, next(iter(codes), ""))


def _by_status(status: int) -> str:
    return {401: "unauthorized", 403: "forbidden", 404: "notFound", 409: "alreadyExists"}.get(
        status, "invalid" if 400 <= status < 500 else ""
    )


def _unanswered(error: Exception, *, action: str, where: str) -> ProviderError:
    """Translate a failure without an answer, or with none that can be read, or in which nothing was
    asked at all."""
    text = f"{action} in {where}: {one_line(str(error)) or type(error).__name__}"
    if isinstance(error, auth.DefaultCredentialsError):
        return CredentialsRefused(f"{action} in {where}: no Google credentials", hint=_LOG_IN)
    if isinstance(error, auth.TransportError):
        return Uncertain(text)
    if isinstance(error, auth.GoogleAuthError):
        return CredentialsRefused(text, hint=_LOG_IN)
    if isinstance(error, ValueError) and _NO_FIELD in text:
        return BadOrder(text, hint=_UPGRADE)
    return Uncertain(text)
