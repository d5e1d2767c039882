"""Meanings of a runner's exit codes. The one place that knows."""

from __future__ import annotations

from typing import Final

_CODES: Final = {
    0: "it is done",
    1: "it was refused or ended: its registration is over, or it may not run",
    2: "it gave up for now",
    3: "it wanted to update itself",
    4: "it wanted to update itself",
    5: "another runner of its name is up",
    6: "its configuration was renewed",
    7: "GitHub takes its version no more: use a newer image",
    126: "the image's runner cannot be executed",
    127: "the image has no runner where the command looks for it",
}


def meaning(code: int) -> str:
    """The meaning of a runner's exit code."""
    return _CODES.get(code, "no code that the runner documents")
