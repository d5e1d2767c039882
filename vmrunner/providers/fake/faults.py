"""Faults of one call to the fake cloud, and what the caller is told then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from vmrunner.errors import (
    BadOrder,
    CredentialsRefused,
    NoCapacity,
    ProviderError,
    QuotaExceeded,
    Throttled,
    Uncertain,
)
from vmrunner.model import Scope


class Fault(StrEnum):
    """A fault of one call."""

    OK = "ok"
    LOST_REQUEST = "lost_request"  # it never arrived: Uncertain, nothing happened
    LOST_RESPONSE = "lost_response"  # it happened: Uncertain
    SERVER_ERROR = "server_error"  # a 5xx before any effect: Uncertain, nothing happened
    LATE = "late"  # Uncertain now; it happens `seconds` later. Of a page: Uncertain only then
    DELAY = "delay"  # all is well, `seconds` later
    THROTTLE = "throttle"
    NO_CAPACITY = "no_capacity"
    QUOTA = "quota"
    CREDENTIALS = "credentials"
    BAD_ORDER = "bad_order"
    WRONG_DATE = "wrong_date"  # all is well, but by its date the answer is `seconds` off
    PARTIAL_PAGE = "partial_page"  # of a sweep: half of the page, then an error


_ERRORS: Final[Mapping[Fault, Callable[[str], ProviderError]]] = {
    Fault.LOST_REQUEST: Uncertain,
    Fault.LOST_RESPONSE: Uncertain,
    Fault.SERVER_ERROR: Uncertain,
    Fault.LATE: Uncertain,
    Fault.THROTTLE: Throttled,
    Fault.NO_CAPACITY: NoCapacity,
    Fault.QUOTA: QuotaExceeded,
    Fault.CREDENTIALS: CredentialsRefused,
    Fault.BAD_ORDER: BadOrder,
}


class Plan(NamedTuple):
    """The fate of one call."""

    fault: Fault = Fault.OK
    seconds: float = 0.0


class Call(NamedTuple):
    """One call through the port, before it happens."""

    method: str
    provider: str
    scope: Scope | None
    about: Any  # create: the instance id; delete: the refs; look: how many; sweep: the kind


def raised(plan: Plan) -> ProviderError | None:
    """The error that the caller gets."""
    make = _ERRORS.get(plan.fault)
    return make(f"fake: {plan.fault.value}") if make else None
