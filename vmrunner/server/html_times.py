"""Times in pages: as people say them, with the moment in UTC beside. `static/times.js` lets them go
on, in the same words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from jinja2 import Environment, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from vmrunner.lib import units
from vmrunner.services.documents import iso

_RECENT: Final = 10  # seconds
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))
#: Epoch seconds, or RFC 3339 in UTC; None: no element.
Moment = float | str | None


def _words_ago(seconds: float) -> str:
    if seconds < _RECENT:
        return "just now"
    size, letter = next(unit for unit in _UNITS if seconds >= unit[0])
    return f"{int(seconds // size)}{letter} ago"


def _words_until(seconds: float) -> str:
    return f"in {units.span(seconds)}" if seconds > 0 else "now"


def ago(at: Moment, now: float) -> Markup:
    """Age of a moment, in words: `just now`, `42s ago`, `3h ago`."""
    return _element(at, "ago", lambda moment: _words_ago(now - moment))


def lasting(since: Moment, now: float) -> Markup:
    """Return for how long something has gone on: `3m07s`."""
    return _element(since, "lasting", lambda moment: units.span(now - moment))


def until(at: Moment, now: float) -> Markup:
    """Return in what time something comes: `in 3m07s`."""
    return _element(at, "until", lambda moment: _words_until(moment - now))


def _element(at: Moment, words: str, shown: Callable[[float], str]) -> Markup:
    stamp = at if isinstance(at, str) else iso(at)
    if at is None or stamp is None:
        return Markup()
    text = shown(datetime.fromisoformat(at).timestamp() if isinstance(at, str) else at)
    title = f"{stamp[:19].replace('T', ' ')} UTC"
    element = Markup('<time datetime="{}" title="{}" data-as="{}">{}</time>')
    return element.format(stamp, title, words, text)


def install(environment: Environment) -> None:
    """Make them filters of templates, whose `now` they take."""

    def of_context(shown: Callable[[Moment, float], Markup]) -> Callable[[Context, Moment], Markup]:
        return pass_context(lambda context, at: shown(at, context["now"]))

    environment.filters |= {
        "span": units.span,
        "ago": of_context(ago), "lasting": of_context(lasting), "until": of_context(until),
    }  # fmt: skip
