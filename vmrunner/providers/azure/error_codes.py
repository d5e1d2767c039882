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
        "SubnetIsFull",
        "ZonalAllocationFailed",
    }
)
#: The spot market has nothing of this size, or at this price; and nothing for this subscription.
NO_SPOT_HERE: Final = frozenset(
    {
        "AzureSpotIsNotSupportedForThisVMSize",
        "AzureSpotNotSupportedForThisVMSize",
        "SpotPriceGreaterThanProvidedMaxPrice",
    }
)
NO_SPOT: Final = "AzureSpotFeatureNotEnabledForSubscription"
#: No rights are missing: a rule of the company's, or of Azure's for this subscription,
#: forbids what was asked.
DISALLOWED: Final = frozenset({"RequestDisallowedByAzure", "RequestDisallowedByPolicy"})
#: The subscription may be read alone: a bill was not paid, or its credit is used up.
DISABLED: Final = "ReadOnlyDisabledSubscription"
QUOTA: Final = frozenset({"QuotaExceeded", "ResourceQuotaExceeded"})
#: How codes of Microsoft.Network's quotas end, each of which has its own.
_FULL: Final = "countlimitreached"
#: One code for all that is not allowed now; a quota, or a lack of room, is told in its words alone.
_NOT_ALLOWED: Final = "OperationNotAllowed"
THROTTLED: Final = frozenset(
    {"OperationRateLimitExceeded", "SubscriptionRequestsThrottled", "TooManyRequests"}
)
DENIED: Final = frozenset({"AuthorizationFailed", "LinkedAuthorizationFailed"})
#: The thing is not there; a group or a subscription that is not there says nothing of it.
MISSING: Final = frozenset({"NotFound", "ResourceNotFound"})
#: A lock keeps it, or its group: no rights suffice to delete it.
LOCKED: Final = "ScopeLocked"
NO_GROUP: Final = "ResourceGroupNotFound"
EXISTS: Final = frozenset({"Conflict", "PreconditionFailed", "ResourceExists"})
#: What may come out otherwise another time.
UNSURE: Final = frozenset(
    {
        "AnotherOperationInProgress",
        "ManagementFailure",
        "NetworkingInternalOperationError",
        "OperationPreempted",
        "RetryableError",
        "VMAllocationRetriableFailure",
    }
)
#: How codes begin of what went wrong within Azure, of which new ones appear.
_INTERNAL: Final = "Internal"
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
        code = _by_status(status) if status == 412 or not code else code
        message += _policies(error)
        return CallFailed(code, refusal(code, message, status, action=action, where=where))
    return CallFailed("", _unanswered(error, action=action, where=where))


def is_of_all(error: Exception) -> bool:
    """True if a refusal for too many calls is about the subscription, and not about one thing.
    Microsoft.Compute speaks of the subscription whichever of its limits was met."""
    code, message = _code_and_message(error) if hasattr(error, "error") else ("", "")
    return code != _NOT_ALLOWED and "subscription" in f"{code} {message}".lower()


def refusal(code: str, message: str, status: int, *, action: str, where: str) -> ProviderError:
    """An error answer, in the core's words."""
    text = f"{action} in {where}: {code or status}: {one_line(message)}"
    nowhere = code == _NOT_ALLOWED and "not available in the current" in message
    if code in CAPACITY or code in NO_SPOT_HERE or nowhere:
        return NoCapacity(text)
    if code == NO_SPOT:
        return NoCapacity(text, hint="leave spot out, or take another kind of subscription")
    if code == DISABLED:
        return CredentialsRefused(text, hint="see the subscription's bill and its state")
    if code in DISALLOWED:
        return BadOrder(text, hint="another location or size, or an exemption from that policy")
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
    if is_undecided(status) or code in UNSURE or code.startswith(_INTERNAL) or not code:
        return Uncertain(text)
    return BadOrder(text)


def is_quota(code: str) -> bool:
    return code in QUOTA or code.lower().endswith(_FULL)


def _code_and_message(error: Any) -> tuple[str, str]:
    """Return the code that says most, and its message."""
    found = error.error
    if found is None:
        return "", str(error.message or "")
    pairs = [
        (str(entry.code or ""), str(entry.message or ""))
        for entry in (found, *(found.details or ()))
    ]
    code, message = next((pair for pair in pairs if pair[0] not in ("", *_WRAPPERS)), pairs[0])
    return code, message


def _policies(error: Any) -> str:
    """Return the names of the policies that forbade it, which stand beside the message."""
    more = getattr(error.error, "additional_info", None) or ()
    infos = [getattr(entry, "info", None) or {} for entry in more]
    keys = ("policyAssignmentDisplayName", "policyAssignmentName")
    names = [next((str(info[key]) for key in keys if info.get(key)), "") for info in infos]
    return f" (policy: {', '.join(filter(None, names))})" if any(names) else ""


def _by_status(status: int) -> str:
    """Return the code of an answer without one, or of a status that says more than its code. A 404
    that is not Azure's own says nothing of what was asked about."""
    codes = {401: "Unauthorized", 403: "Forbidden", 412: "PreconditionFailed"}
    return codes.get(status, "Invalid" if 400 <= status < 500 and status not in (404, 429) else "")


def _unanswered(error: Exception, *, action: str, where: str) -> ProviderError:
    """Translate a failure without an answer, or with none that can be read, or in which nothing was
    asked at all."""
    text = f"{action} in {where}: {one_line(str(error)) or type(error).__name__}"
    if isinstance(error, CredentialUnavailableError):
        return CredentialsRefused(f"{action} in {where}: no Azure credentials", hint=_LOG_IN)
    if isinstance(error, azure.ClientAuthenticationError):
        return CredentialsRefused(text, hint=_LOG_IN)
    return Uncertain(text)
