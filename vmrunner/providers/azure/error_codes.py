"""Azure's errors in the core's terms: translated once, here."""

from __future__ import annotations

from typing import Any, Final

from azure.core import exceptions as azure
from azure.identity import CredentialUnavailableError

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

CAPACITY: Final = frozenset(
    {
        "AllocationFailed",
        "AllocationTimeout",
        "OverconstrainedAllocationRequest",
        "OverconstrainedZonalAllocationRequest",
        "SkuNotAvailable",
        "SpotEvictionOccurred",
        "ZonalAllocationFailed",
    }
)
QUOTA: Final = frozenset({"QuotaExceeded", "ResourceQuotaExceeded"})
#: How codes of Microsoft.Network's quotas end, each of which has its own.
_FULL: Final = "countlimitreached"
#: One code for all that is not allowed now; a quota is told in its words alone.
_NOT_ALLOWED: Final = "OperationNotAllowed"
THROTTLED: Final = frozenset(
    {"OperationRateLimitExceeded", "SubscriptionRequestsThrottled", "TooManyRequests"}
)
DENIED: Final = frozenset({"AuthorizationFailed", "LinkedAuthorizationFailed"})
#: The thing is not there; a group or a subscription that is not there says nothing of it.
MISSING: Final = frozenset({"NotFound", "ResourceNotFound"})
#: Somebody keeps it, or its group: nobody deletes it, whatever his rights.
LOCKED: Final = "ScopeLocked"
NO_GROUP: Final = "ResourceGroupNotFound"
EXISTS: Final = frozenset({"Conflict", "PreconditionFailed", "ResourceExists"})
#: What may come out otherwise another time.
UNSURE: Final = frozenset(
    {
        "AnotherOperationInProgress",
        "InternalError",
        "InternalExecutionError",
        "InternalOperationError",
        "InternalRetriableError",
        "InternalServerError",
        "NetworkingInternalOperationError",
        "OperationPreempted",
        "RetryableError",
    }
)
#: The provider of these resources is not registered in the subscription.
UNREGISTERED: Final = frozenset({"MissingSubscriptionRegistration", "SubscriptionNotRegistered"})
#: Company: what happened stands in the details.
_WRAPPERS: Final = frozenset(
    {"DeploymentFailed", "ResourceOperationFailure", "ResourceDeploymentFailure"}
)

_LOG_IN: Final = "az login, or a managed identity for this machine"


def failed(error: Exception, *, action: str, where: str) -> CallFailed:
    """Translate what the SDK raised for `action` at `where`."""
    response = getattr(error, "response", None)
    if isinstance(error, azure.HttpResponseError) and response is not None:
        code, message = _code_and_message(error)
        status = int(error.status_code or 0)
        code = code or _by_status(status)
        return CallFailed(code, refusal(code, message, status, action=action, where=where))
    return CallFailed("", _unanswered(error, action=action, where=where))


def refusal(code: str, message: str, status: int, *, action: str, where: str) -> ProviderError:
    """An error answer, in the core's words."""
    text = f"{action} in {where}: {code or status}: {one_line(message)}"
    if code in CAPACITY:
        return NoCapacity(text)
    if is_quota(code) or (code == _NOT_ALLOWED and "quota" in message.lower()):
        return QuotaExceeded(text, hint="raise the subscription's quota, or run fewer at once")
    if code in THROTTLED or status == 429:
        return Throttled(text)
    if code in UNREGISTERED:
        return CredentialsRefused(text, hint="az provider register --namespace, as the error says")
    if code == LOCKED:
        return BadOrder(text, hint="az lock list, then az lock delete")
    if code in DENIED or status == 403:
        return CredentialsRefused(text, hint=f"allow {action} to these credentials: docs/azure.md")
    if status == 401:
        return CredentialsRefused(text, hint=_LOG_IN)
    if is_undecided(status) or code in UNSURE or not code:
        return Uncertain(text)
    return BadOrder(text)


def is_quota(code: str) -> bool:
    return code in QUOTA or code.lower().endswith(_FULL)


def _code_and_message(error: Any) -> tuple[str, str]:
    """Return the code that says most, and its message."""
    found = error.error
    if found is None:
        return "", str(error.message or "")
    told = [
        (str(one.code or ""), str(one.message or "")) for one in (found, *(found.details or ()))
    ]
    code, message = next((pair for pair in told if pair[0] not in ("", *_WRAPPERS)), told[0])
    return code, message


def _by_status(status: int) -> str:
    """Return the code of an answer without one. A 404 that is not Azure's own says nothing of what
    was asked about."""
    known = {401: "Unauthorized", 403: "Forbidden", 412: "PreconditionFailed"}
    return known.get(status, "Invalid" if 400 <= status < 500 and status not in (404, 429) else "")


def _unanswered(error: Exception, *, action: str, where: str) -> ProviderError:
    """Translate a failure without an answer, or with none that can be read, or in which nothing was
    asked at all."""
    text = f"{action} in {where}: {one_line(str(error)) or type(error).__name__}"
    if isinstance(error, CredentialUnavailableError):
        return CredentialsRefused(f"{action} in {where}: no Azure credentials", hint=_LOG_IN)
    if isinstance(error, azure.ClientAuthenticationError):
        return CredentialsRefused(text, hint=_LOG_IN)
    return Uncertain(text)
