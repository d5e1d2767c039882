"""A guard's sign of life: the time of its last pass, which the guard itself leaves in its cloud.
That it is there, and even that it was invoked, says nothing of the code in it."""

from __future__ import annotations

import re
from typing import Final

from vmrunner.model import Finding
from vmrunner.providers.common.findings import bad, ok
from vmrunner.providers.port_guard import GUARD_INTERVAL

#: What it is called where the guard leaves it: a tag's name after `vmrunner:`.
SIGN: Final = "last-pass"
#: A last pass that is older, in seconds, counts as none.
STALE: Final = 3 * GUARD_INTERVAL
#: The clocks of one cloud differ by less, in seconds: a later time says nothing of a pass.
AHEAD: Final = 120


def last_pass(text: object) -> float | None:
    """Read epoch seconds as a guard writes them; None: none, or no time."""
    digits = text if isinstance(text, str) else ""
    return float(digits) if re.fullmatch(r"\d{1,12}", digits, re.ASCII) else None


def lives(last: float | None, now: float) -> bool:
    """Tell whether a guard with this last pass is at work. `now`: by the cloud's clock."""
    return last is not None and -AHEAD <= now - last <= STALE


def why_not(last: float | None, now: float) -> str:
    """Say what is wrong with the last pass of a guard that does not live."""
    if last is None:
        return "it never passed, or is older than guards that tell their last pass"
    if now < last:
        return f"its last pass is {last - now:.0f} s in the future"
    return f"its last pass was {(now - last) / 60:.0f} minutes ago; one is due every 5"


def finding(name: str, last: float | None, now: float, fix: str) -> Finding:
    """Tell of the guard `name`. `fix`: how it is brought up to date, and where it tells what went
    wrong."""
    if last is not None and lives(last, now):
        return ok("guard", f"{name} works: its last pass was {max(now - last, 0.0):.0f} s ago")
    return bad("guard", f"{name} is there, and ends nothing: {why_not(last, now)}", fix)
