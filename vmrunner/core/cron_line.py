"""The check of a cron line, as Debian's cron reads it. When it fires is CronSim's business."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from vmrunner.errors import ConfigError

#: The fields of a cron line as CronSim names them, with what each may hold.
_CRON: Final = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31",
    "month": "1 to 12",
    "day-of-week": "0 to 7",
}
#: What cron knows, of what CronSim knows; no number so long that Python would not read it.
_CRON_WORD: Final = re.compile(r"(?!.*[0-9]{5})(?:[0-9*/,-]|[a-z]{3})+", re.ASCII | re.IGNORECASE)

_ANY_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)


def check(line: str, field: str) -> str:
    """Return the line: minute, hour, day of the month, month and day of the week. Raises
    `ConfigError` with `field`, the line and the fix."""
    words = line.split()
    if len(words) != len(_CRON):
        raise ConfigError(
            f"{field}: {line!r}: not a cron line", hint="five fields, such as */5 * * * *"
        )
    wrong = _misread(words)
    if wrong is None:
        return line
    name, bounds = list(_CRON.items())[wrong]
    prefix = f"{field}: {line!r}: {name.replace('-of-', ' of the ')} {words[wrong]!r}"
    if name == "day-of-month" and _misread([*words[:3], "*", words[4]]) is None:
        raise ConfigError(f"{prefix} of month {words[3]!r} never comes", hint="give another day")
    raise ConfigError(f"{prefix} is not within {bounds}", hint="write *, 5, 1-5, */5 or 1,5")


def _misread(words: Sequence[str]) -> int | None:
    """The number of the field that cannot be read."""
    from cronsim import CronSim, CronSimError

    for number, word in enumerate(words):
        if not _CRON_WORD.fullmatch(word):
            return number
    try:
        CronSim(" ".join(words), _ANY_TIME)
    except CronSimError as error:
        return list(_CRON).index(str(error).removeprefix("Bad "))
    return None
