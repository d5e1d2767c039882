"""What Azure's answers mean, as its own client raises them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from azure.core import exceptions as azure
from azure.identity import CredentialUnavailableError
from azure.mgmt.core.exceptions import ARMErrorFormat

from vmrunner.errors import (
    BadOrder,
    CredentialsRefused,
    NoCapacity,
    ProviderError,
    QuotaExceeded,
    Throttled,
    Uncertain,
)
from vmrunner.providers.azure import error_codes
from vmrunner.providers.common.call_failed import CallFailed

QUOTA = "Operation could not be completed as it results in exceeding approved cores quota."


class Response:
    """An answer, as far as the client's errors read one."""

    reason = "said so"
    content_type = "application/json"

    def __init__(self, status: int, body: Any) -> None:
        self.status_code = status
        self._body = body if isinstance(body, str) else json.dumps(body)

    def text(self, encoding: str | None = None) -> str:
        return self._body


def failed(status: int, code: str = "", message: str = "no", **more: Any) -> CallFailed:
    body = {"error": {"code": code, "message": message, **more}} if code else "<html>"
    error = azure.HttpResponseError(response=Response(status, body), error_format=ARMErrorFormat)
    return error_codes.failed(error, action="Microsoft.Compute/virtualMachines/write", where="g")


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (409, "SkuNotAvailable", "", NoCapacity),
        (409, "ZonalAllocationFailed", "", NoCapacity),
        (409, "AllocationFailed", "", NoCapacity),
        (409, "OverconstrainedAllocationRequest", "", NoCapacity),
        (409, "OverconstrainedZonalAllocationRequest", "", NoCapacity),
        (409, "QuotaExceeded", "", QuotaExceeded),
        (409, "OperationNotAllowed", QUOTA, QuotaExceeded),
        (400, "PublicIPCountLimitReached", "", QuotaExceeded),
        (400, "StaticPublicIPCountLimitReached", "", QuotaExceeded),
        (400, "IPv4StandardSkuPublicIpCountLimitReached", "", QuotaExceeded),
        (429, "OperationNotAllowed", "too many requests have been received", Throttled),
        (429, "TooManyRequests", "", Throttled),
        (429, "", "", Throttled),
        (409, "OperationNotAllowed", "the VM is marked for deletion", BadOrder),
        (400, "InvalidParameter", "", BadOrder),
        (404, "ResourceGroupNotFound", "", BadOrder),
        (401, "InvalidAuthenticationToken", "", CredentialsRefused),
        (403, "AuthorizationFailed", "", CredentialsRefused),
        (409, "MissingSubscriptionRegistration", "", CredentialsRefused),
        (409, "RetryableError", "", Uncertain),
        (0, "InternalExecutionError", "Please retry later.", Uncertain),
        (500, "InternalServerError", "", Uncertain),
        (400, "SubnetIsFull", "", NoCapacity),
        (0, "SubnetIsFull", "", NoCapacity),
        (400, "AzureSpotFeatureNotEnabledForSubscription", "", NoCapacity),
        (400, "AzureSpotIsNotSupportedForThisVMSize", "", NoCapacity),
        (409, "SpotPriceGreaterThanProvidedMaxPrice", "", NoCapacity),
        (409, "OperationNotAllowed", "D2 is not available in the current region.", NoCapacity),
        (0, "InternalDiskManagementError", "", Uncertain),
        (0, "ManagementFailure", "", Uncertain),
        (0, "VMAllocationRetriableFailure", "", Uncertain),
        (403, "RequestDisallowedByPolicy", "", BadOrder),
        (403, "RequestDisallowedByAzure", "", BadOrder),
        (409, "ReadOnlyDisabledSubscription", "", CredentialsRefused),
        (502, "", "", Uncertain),
        (408, "", "", Uncertain),
    ],
)
def test_an_answer_is_told_in_our_words(
    status: int, code: str, message: str, kind: type[ProviderError]
) -> None:
    assert type(failed(status, code, message).error) is kind


def test_what_happened_stands_in_the_details() -> None:
    inner = {"code": "AllocationFailed", "message": "no room"}
    error = failed(409, "ResourceOperationFailure", "it ended in Failed", details=[inner])
    assert error.code == "AllocationFailed"
    assert isinstance(error.error, NoCapacity)
    assert "no room" in str(error)


@pytest.mark.parametrize(
    ("status", "code", "codes"),
    [
        (404, "ResourceNotFound", error_codes.MISSING),
        (412, "", error_codes.EXISTS),
        (412, "ConditionNotMet", error_codes.EXISTS),
        (409, "Conflict", error_codes.EXISTS),
    ],
)
def test_what_is_there_and_what_is_not(status: int, code: str, codes: frozenset[str]) -> None:
    assert failed(status, code).code in codes


def test_a_policy_is_named_and_no_right_is_asked_for() -> None:
    """As Resource Manager writes it: its name stands beside the message."""
    info = {"policyAssignmentDisplayName": "Allowed locations", "policyAssignmentName": "a1"}
    more = [{"type": "PolicyViolation", "info": info}]
    error = failed(403, "RequestDisallowedByPolicy", "no", additionalInfo=more)
    assert "policy: Allowed locations" in str(error)
    assert "credentials" not in error.error.hint


def test_a_disabled_subscription_is_no_missing_right() -> None:
    assert "bill" in failed(409, "ReadOnlyDisabledSubscription").error.hint


def test_a_404_of_nobody_we_know_is_no_death() -> None:
    """A proxy's, or a gateway's on the way."""
    error = failed(404)
    assert error.code not in error_codes.MISSING
    assert isinstance(error.error, Uncertain)


def test_a_missing_group_is_no_missing_vm() -> None:
    assert failed(404, "ResourceGroupNotFound").code not in error_codes.MISSING
    assert failed(404, "SubscriptionNotFound").code not in error_codes.MISSING


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CredentialUnavailableError("none of them"), CredentialsRefused),
        (azure.ClientAuthenticationError("expired"), CredentialsRefused),
        (azure.ServiceRequestError("refused"), Uncertain),
        (azure.ServiceResponseError("cut"), Uncertain),
        (ValueError("no JSON"), Uncertain),
    ],
)
def test_no_answer_may_have_happened(error: Exception, kind: type[ProviderError]) -> None:
    assert type(error_codes.failed(error, action="a", where="g").error) is kind
