"""The keeper's way back to its creator, who waits for one line (spawn.py).

Read by the keeper: standard library only.
"""

from __future__ import annotations

import contextlib
import os


def answer(line: str) -> None:
    """Say it. A creator that waits no more ends no VM."""
    with contextlib.suppress(BrokenPipeError):
        print(line, flush=True)  # noqa: T201


def detach() -> None:
    """Let go of its pipe, its terminal, its directory."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)
