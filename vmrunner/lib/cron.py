"""A cron line, as cron reads it. Pure.

Five fields: minute, hour, day of the month, month, day of the week; in each `*`, numbers, ranges
`a-b`, steps `*/n` and `a-b/n`, and lists of them; months and weekdays also by their names. Sunday
is 0 and 7. With both days given, either of them is enough.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_MONTHS: Final = (
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
)  # fmt: skip
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LENGTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_PART: Final = re.compile(r"(\*|[a-z0-9]+)(?:-([a-z0-9]+))?(?:/([0-9]+))?", re.ASCII)
#: name, lowest, highest, names, and the number of the first name
_FIELDS: Final = (
    ("minute", 0, 59, (), 0),
    ("hour", 0, 23, (), 0),
    ("day of the month", 1, 31, (), 0),
    ("month", 1, 12, _MONTHS, 1),
    ("day of the week", 0, 7, _DAYS, 0),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """When: the numbers that each field allows. `days` None: any; `weekdays` are from Sunday, 0."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...] | None
    months: tuple[int, ...]
    weekdays: tuple[int, ...] | None


def parse(line: str) -> Cron:
    """Raises ValueError, which says what cannot be read and what would do."""
    words = line.lower().split()
    if len(words) != len(_FIELDS):
        raise ValueError("not a cron line; five fields, such as */5 * * * *")
    minutes, hours, days, months, weekdays = map(_field, words, _FIELDS)
    if words[4] == "*" and min(days) > max(_LENGTHS[month - 1] for month in months):
        raise ValueError(f"day {words[2]!r} of month {words[3]!r} never comes")
    return Cron(
        minutes=minutes,
        hours=hours,
        days=None if words[2] == "*" else days,
        months=months,
        weekdays=None if words[4] == "*" else tuple(sorted({day % 7 for day in weekdays})),
    )


def _field(word: str, field: tuple[str, int, int, tuple[str, ...], int]) -> tuple[int, ...]:
    name, low, high, names, first = field

    def number(text: str) -> int:
        if text in names:
            return names.index(text) + first
        if text.isdigit() and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"{name} {word!r} is not within {low} to {high}")

    found: set[int] = set()
    for part in word.split(","):
        match = _PART.fullmatch(part)
        if match is None or (match[1] == "*" and match[2]):
            raise ValueError(f"{name} {word!r} cannot be read; write *, 5, 1-5, */5 or 1,5")
        step = int(match[3] or 1)
        if match[1] == "*":
            begin, end = low, high
        else:
            begin = number(match[1])
            end = number(match[2]) if match[2] else high if match[3] else begin
        if step < 1 or begin > end:
            raise ValueError(f"{name} {word!r} names no time")
        found.update(range(begin, end + 1, step))
    return tuple(sorted(found))
