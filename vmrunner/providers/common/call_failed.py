"""One call of a cloud's SDK that failed: in its words for the driver, in ours for the core."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vmrunner.errors import ProviderError


class CallFailed(Exception):
    """A failed call, which never leaves a driver. `code` is the cloud's own, or "" when there was
    no answer; `error` is what the core is told."""

    def __init__(self, code: str, error: ProviderError) -> None:
        super().__init__(str(error))
        self.code = code
        self.error = error


def one_line(message: str, *, before: str = "") -> str:
    """An SDK's message in at most 300 characters; `before`: where what nobody can read begins."""
    words = " ".join(message.split())
    return (words.partition(before)[0] if before else words)[:300]


def is_undecided(status: int) -> bool:
    """True when an answer of this HTTP status may come after the work was done."""
    return status == 408 or status >= 500


@contextmanager
def edge() -> Iterator[None]:
    """A driver's edge: what fails inside is told in the core's words."""
    try:
        yield
    except CallFailed as failed:
        raise failed.error from failed
