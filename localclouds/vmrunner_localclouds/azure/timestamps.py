"""Times, as the service writes them: RFC 3339 in UTC, with seven digits of a second."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_FORM: Final = "%Y-%m-%dT%H:%M:%S.%f"


def written(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime(_FORM) + "0+00:00"


def read(text: str) -> float:
    """Raises ValueError when it is not RFC 3339 with a zone."""
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError(text)
    return when.timestamp()
