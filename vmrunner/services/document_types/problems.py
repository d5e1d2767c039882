"""Types of problem documents (RFC 9457)."""

from __future__ import annotations

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from vmrunner.services.document_types.values import Scalar


class OneFault(TypedDict):
    """One of several faults."""

    field: str | None
    value: Scalar
    detail: str
    fix: str | None


class Problem(TypedDict):
    """An answer that is no success. `field` and `value`: of the body or query, where the fault is
    one of theirs; `error`: the name of the exception in Python; `errors`: all faults, where there
    are several; `request_id`: by which the server's log has it."""

    type: str
    title: str
    status: int
    detail: Annotated[str, Field(description="The fault, in words.")]
    fix: Annotated[str | None, Field(description="What to do about it.")]
    field: str | None
    value: Scalar
    error: str | None
    errors: NotRequired[list[OneFault]]
    request_id: NotRequired[str]
