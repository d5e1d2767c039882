"""Texts of the API's parameters, for the OpenAPI document: generated clients show them to whoever
writes a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_BUILD: Final = "Its id, the beginning of one that no other begins with, or its name."

#: By name.
_TEXTS: Final[Mapping[str, str]] = {
    "actor": "Who submitted it: an actor as the build shows it, the name of a token, the `sub` of "
    "an identity. Repeated: any of them.",
    "after": "`next` of the page before.",
    "after_line": "Chunks from the one that has the line after this one.",
    "after_seq": "Chunks after the one of this number.",
    "brief": "The build alone, without its VMs, events and artifacts.",
    "build": _BUILD,
    "by": "What to sum by: `provider`, `day`, `label:NAME`.",
    "cache": "Its id.",
    "cloud": "Also what the clouds show now, and VMs that have no row. Not for tenants.",
    "command": "The id that you gave it.",
    "count": "How many lines, at most.",
    "dry_run": "Check it and start nothing.",
    "first": "The number of the first line; the log begins with 1.",
    "instance": "The VM's id, or the beginning of one that no other begins with.",
    "label": "`NAME=VALUE`. Repeated: all of them.",
    "last": "Whether its stdin ends with these bytes.",
    "limit": "How many, at most.",
    "mine": "Only those that this very tenant submitted.",
    "name": "The exact name; with `*` at its end every name that begins so.",
    "offset": "Where in its stdin these bytes stand.",
    "older_than": "Machines that are older than this, such as `6h`; with `tag`.",
    "path": "From the root, or below `/work`.",
    "pool": "Its name.",
    "provider": "Its name in the configuration.",
    "result": "How it ended. Repeated: any of them.",
    "sandbox": _BUILD,
    "signal": "The signal for all its processes.",
    "since": "So long ago (`24h`), a time with its zone, or a date (UTC): finished ones that ended "
    "then or later, others that were submitted then or later.",
    "state": "Its state; `active` is all but `finished`. Repeated: any of them.",
    "stderr": "The first byte of its stderr that is wanted.",
    "stdout": "The first byte of its stdout that is wanted.",
    "tag": "`KEY=VALUE`: machines of any maker that have this tag; with `older_than`.",
    "text": "What to look for, whatever the case of its ASCII letters.",
    "until": "As `since`: those that ended, or were submitted, before.",
    "wait": "Seconds to wait for something new, at most.",
    "what": "The bytes, or what the path is.",
    "width": "How many bytes of each line, at most.",
}
#: By operation and name, where it is something else there.
_ELSEWHERE: Final[Mapping[tuple[str, str], str]] = {
    ("get_artifact", "path"): "The artifact's, as the list shows it.",
    ("list_costs", "since"): "How far back: `24h`, `30d`.",
    ("list_instances", "build"): "Only the VMs of this build.",
    ("list_instances", "state"): "The VM's state.",
    ("read_chunks", "wait"): "Wait for one chunk at least.",
    ("read_events", "after"): "Events after the one of this number.",
    ("read_file", "what"): "The bytes of a file, a `list` of what is in a directory, or a `stat`.",
    ("search_log", "after"): "Look after this line: `searched` of the answer before.",
    (
        "write_file",
        "what",
    ): "The body is a file's; with `dir` there is none, and a directory is made.",
}


def describe(operation: dict[str, Any]) -> None:
    """Give each parameter of an operation its text. Raises KeyError for one that has none."""
    for parameter in operation.get("parameters", ()):
        if "name" in parameter and "description" not in parameter:
            name = parameter["name"]
            special = _ELSEWHERE.get((operation["operationId"], name))
            parameter["description"] = special or _TEXTS[name]
