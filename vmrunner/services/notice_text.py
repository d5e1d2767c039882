"""A notice for people, of the document that a webhook gets: one short line of plain text.

Names and steps are a build's own: what a chat would take for a mention, a link or markup is none in
it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

LONGEST_NOTICE: Final = 500  # characters
_LONGEST_STEP: Final = 80
_ALIKE: Final = str.maketrans({"<": "‹", ">": "›", "@": "＠", "`": "'", "[": "(", "]": ")"})
#: Ends of builds of which people are told.
_SHOUTED: Final = {"failure": "FAILED", "error": "ERROR", "timeout": "TIMEOUT"}
_SHORT_ID: Final = 10


def text_of(document: Mapping[str, Any], server_url: str) -> str:
    """The text; "": nothing that people are told of. `server_url`: of the page, or ""."""
    event = str(document["event"])
    if event != "build.ended":
        return _joined(_alarm(event, document), server_url)
    build = document["items"][0]
    shout = _SHOUTED.get(str(build["result"]))
    if shout is None:
        return ""
    name = str(build.get("name") or "build")
    short = f"#{str(build['id'])[-_SHORT_ID:]}"
    link = f"{server_url.rstrip('/')}/builds/{build['id']}" if server_url else str(build["id"])
    what = " · ".join(part for part in (f"{shout} {name} {short}", _step(build)) if part)
    return _joined(what, link)


def _step(build: Mapping[str, Any]) -> str:
    """The step that failed and how, else why the build ended."""
    for number, step in enumerate(build.get("steps") or (), 1):
        if code := step.get("exit_code"):
            command = step.get("name") or step.get("run") or " ".join(step.get("argv") or ())
            return f"step {number} '{_line(str(command), _LONGEST_STEP)}' exit {code}"
    return _line(str(build.get("message") or build.get("reason") or ""), _LONGEST_STEP)


def _alarm(event: str, document: Mapping[str, Any]) -> str:
    first: Mapping[str, Any] = next(iter(document.get("items") or ()), {})
    named = next((first[key] for key in ("name", "id", "provider") if first.get(key)), "")
    why = next((first[key] for key in ("message", "detail", "fault") if first.get(key)), "")
    kind = event.removeprefix("alarm.").replace("_", " ")
    shout = "TEST" if event == "test" else f"ALARM {kind}"
    return " ".join(part for part in (shout, _line(str(named), 80), _line(str(why), 200)) if part)


def _joined(text: str, link: str) -> str:
    plain = _line(text, LONGEST_NOTICE - len(link))
    return f"{plain} · {link}" if link else plain


def _line(text: str, most: int) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split()).translate(_ALIKE)
    return line if len(line) <= most else f"{line[: most - 1]}…"
