"""Moments as people write them: a time, or a duration ago. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from vmrunner.errors import ConfigError
from vmrunner.lib import units

_TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+ -]\d\d:\d\d))?", re.ASCII | re.I
)
_FIX: Final = "write 24h for so long ago, 2026-11-30 (UTC), or 2026-11-30T08:00:00Z"
_LONGEST: Final = 64
_MOST: Final = 10 * 366 * 86_400.0  # seconds ago


def moment(value: object, field: str, now: float) -> float:
    """Epoch seconds, from "24h" (so long before `now`), a time of RFC 3339 with its zone, a date
    (its midnight, UTC), or a `datetime` that knows its zone. Raises ConfigError."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ConfigError(
                f"{field}: {value} has no time zone", hint="datetime.now(timezone.utc)"
            )
        return value.timestamp()
    if isinstance(value, str) and (at := _time(value.strip())) is not None:
        return at
    try:
        ago = units.duration(value, field)
    except ConfigError:
        text = repr(value)
        short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
        raise ConfigError(f"{field}: {short} is neither a time nor a duration", hint=_FIX) from None
    if ago > _MOST:  # as whoever writes epoch seconds meets it
        raise ConfigError(f"{field}: {ago:.0f} s are more than ten years", hint=_FIX)
    return now - ago


def _time(text: str) -> float | None:
    if not _TIME.fullmatch(text):
        return None
    if len(text) > len("2026-11-30") and text[-6] == " ":  # a `+` in a URL is a space
        text = f"{text[:-6]}+{text[-5:]}"
    try:
        found = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    at = found if found.tzinfo else found.replace(tzinfo=UTC)
    return max(0.0, at.timestamp())
