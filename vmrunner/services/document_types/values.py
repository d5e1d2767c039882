"""Types of the values that documents hold, and of their envelope."""

from __future__ import annotations

from typing import Annotated, Generic, TypeAlias, TypeVar

from pydantic import Field
from typing_extensions import TypedDict

from vmrunner.model.builds import RUNTIMES

T = TypeVar("T")


#: A moment in RFC 3339, in UTC.
Moment: TypeAlias = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Seconds: TypeAlias = Annotated[float, Field(description="Seconds.")]
Usd: TypeAlias = Annotated[float, Field(description="USD.")]
Size: TypeAlias = Annotated[int, Field(description="Bytes.")]
Base64: TypeAlias = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
Runtime: TypeAlias = Annotated[str, Field(json_schema_extra={"enum": list(RUNTIMES)})]
Scalar: TypeAlias = str | int | float | bool | None


class Envelope(TypedDict, Generic[T]):
    """Documents in their stable outer shape."""

    schema_version: int
    kind: str
    items: list[T]
