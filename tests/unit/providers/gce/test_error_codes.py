"""Errors of operations, by Google's own codes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from vmrunner.errors import BadOrder, NoCapacity, ProviderError, QuotaExceeded, Throttled, Uncertain
from vmrunner.providers.gce import error_codes


@pytest.mark.parametrize(
    ("code", "error"),
    [
        # What Karpenter's provider for Google Cloud counts as insufficient capacity.
        ("ZONE_RESOURCE_POOL_EXHAUSTED", NoCapacity),
        ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", NoCapacity),
        ("IP_SPACE_EXHAUSTED", NoCapacity),
        ("IP_SPACE_EXHAUSTED_WITH_DETAILS", NoCapacity),
        ("UNSUPPORTED_OPERATION", NoCapacity),
        ("QUOTA_EXCEEDED", QuotaExceeded),
        ("RATE_LIMIT_EXCEEDED", Throttled),
        ("INTERNAL_ERROR", Uncertain),
        ("INVALID_USAGE", BadOrder),
    ],
)
def test_a_failed_operation_is_what_its_code_says(code: str, error: type[ProviderError]) -> None:
    failure = SimpleNamespace(code=code, message="It came to nothing.")
    operation = SimpleNamespace(
        name="operation-1", error=SimpleNamespace(errors=[failure]), http_error_status_code=400
    )
    failed = error_codes.of_operation(operation, action="instances.insert", where="zone")
    assert failed is not None
    assert type(failed.error) is error
