"""Times, as the service writes them: RFC 3339 in Pacific time, milliseconds and all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Final

_PACIFIC: Final = timezone(timedelta(hours=-8))


def written(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, _PACIFIC).isoformat(timespec="milliseconds")


def read(text: str) -> float:
    """Raises ValueError when it is not RFC 3339 with a zone."""
    when = datetime.fromisoformat(text)
    if when.tzinfo is None or "T" not in text.upper():
        raise ValueError(text)
    return when.astimezone(UTC).timestamp()
