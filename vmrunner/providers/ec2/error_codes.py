"""EC2's error codes in the core's terms: translated once, here."""

from __future__ import annotations

import re
from typing import Any, Final

from botocore import exceptions as boto

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

#: What follows in a denial is encoded.
_PAGE: Final = " Encoded authorization failure message"

CAPACITY: Final = frozenset(
    {
        "InsufficientAddressCapacity",
        "InsufficientCapacity",
        "InsufficientCapacityOnOutpost",
        "InsufficientCapacityOnHost",
        "InsufficientFreeAddressesInSubnet",
        "InsufficientHostCapacity",
        "InsufficientInstanceCapacity",
        "InsufficientReservedInstanceCapacity",
        "InsufficientVolumeCapacity",
        "ReservationCapacityExceeded",
        "SpotMaxPriceTooLow",
        "Unsupported",  # this type is not to be had in this zone
        "UnfulfillableCapacity",
    }
)
QUOTA: Final = frozenset(
    {
        "AddressLimitExceeded",
        "InstanceLimitExceeded",
        "MaxIOPSLimitExceeded",
        "MaxSpotInstanceCountExceeded",
        "NetworkInterfaceLimitExceeded",
        "ResourceCountExceeded",
        "ServiceQuotaExceededException",
        "VcpuLimitExceeded",
        "VolumeLimitExceeded",
    }
)
THROTTLED: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottledException",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
DENIED: Final = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnauthorizedAccess", "UnauthorizedOperation"}
)
#: The very credentials are not accepted, whatever is asked.
UNKNOWN_KEY: Final = frozenset(
    {
        "AccountDisabled",
        "AuthFailure",
        "Blocked",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "OptInRequired",
        "PendingVerification",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
EXPIRED: Final = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
)
#: The account has no role for spot yet, and these credentials may not make it: no spot VM is had,
#: others are.
NO_SPOT_ROLE: Final = "AuthFailure.ServiceLinkedRoleCreationNotPermitted"
MAKE_SPOT_ROLE: Final = "aws iam create-service-linked-role --aws-service-name spot.amazonaws.com"
#: Of an id that names no instance.
UNKNOWN_INSTANCE: Final = re.compile(r"InvalidInstanceID\.(NotFound|Malformed)")
#: 4xx that say nothing of the request.
UNCERTAIN: Final = frozenset(
    {"IdempotentParameterMismatch", "IdempotentInstanceTerminated", "RequestTimeout"}
)


def failed(error: Exception, *, action: str, region: str) -> CallFailed:
    """Translate what botocore raised for `action` in `region`."""
    if isinstance(error, boto.ClientError):
        response: Any = error.response
        code = str(response.get("Error", {}).get("Code", ""))
        message = str(response.get("Error", {}).get("Message", "")) or code
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return CallFailed(code, refusal(code, message, status, action=action, region=region))
    return CallFailed("", _unanswered(error, action=action, region=region))


def refusal(code: str, message: str, status: int, *, action: str, region: str) -> ProviderError:
    """An error answer, in the core's words."""
    text = f"{action} in {region}: {code}: {one_line(message, before=_PAGE)}"
    if code == NO_SPOT_ROLE:
        return NoCapacity(text, hint=MAKE_SPOT_ROLE)
    if code in CAPACITY:
        return NoCapacity(text)
    if code in QUOTA:
        return QuotaExceeded(text, hint="raise the account's quota, or run fewer at once")
    if code in THROTTLED:
        return Throttled(text)
    if code in EXPIRED:
        return CredentialsRefused(text, hint="renew the credentials; check this host's clock")
    if code in UNKNOWN_KEY:
        return CredentialsRefused(
            text,
            hint=f"check the credentials, that {region} is enabled for the account, "
            "and this host's clock",
        )
    if code in DENIED:
        return CredentialsRefused(text, hint=f"allow {action} to these credentials")
    if is_undecided(status) or code in UNCERTAIN or not code:
        return Uncertain(text)
    return BadOrder(text)


def _unanswered(error: Exception, *, action: str, region: str) -> ProviderError:
    """Translate a failure without an answer, or with none that can be read, or in which nothing was
    asked at all."""
    text = f"{action} in {region}: {one_line(str(error), before=_PAGE)}"
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError)):
        return CredentialsRefused(
            f"{action} in {region}: no AWS credentials",
            hint="aws configure, AWS_PROFILE, AWS_ACCESS_KEY_ID, or a role for this machine",
        )
    if isinstance(
        error,
        (
            boto.CredentialRetrievalError,
            boto.SSOTokenLoadError,
            boto.TokenRetrievalError,
            boto.UnauthorizedSSOTokenError,
        ),
    ):
        return CredentialsRefused(text, hint="log in again: aws sso login")
    if isinstance(error, boto.ParamValidationError):
        return BadOrder(text)
    return Uncertain(text)
