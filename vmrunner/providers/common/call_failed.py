"""One call of a cloud's SDK that failed: in its words for the driver, in ours for the core."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from vmrunner.errors import ProviderError


class CallFailed(Exception):
    """A failed call, which never leaves a driver. `code` is the cloud's own, or "" when there was
    no answer; `error` is what the core is told."""

    def __init__(self, code: str, error: ProviderError) -> None:
        super().__init__(str(error))
        self.code = code
        self.error = error


#: A page in a message, also as Python writes bytes, to its end.
_HTML: Final = re.compile(r"(b['\"])?<(!doctype html|html)\b.*", re.IGNORECASE | re.DOTALL)


def one_line(message: str, *, before: str = "") -> str:
    """An SDK's message in at most 300 characters; `before`: where its unreadable part begins. Of a
    page that a gateway answers with, it says just that."""
    text = _HTML.sub("a page of HTML, as a gateway's", " ".join(message.split()), count=1)
    return (text.partition(before)[0] if before else text)[:300]


def is_undecided(status: int) -> bool:
    """True when an answer of this HTTP status may come after the work was done."""
    return status == 408 or status >= 500


class tolerated:  # noqa: N801 - used as a word, as `suppress` is
    """Ends a block, and no more, at a failed call with one of these codes."""

    def __init__(self, codes: Collection[str]) -> None:
        self._codes = codes

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        return isinstance(error, CallFailed) and error.code in self._codes


@contextmanager
def edge() -> Iterator[None]:
    """A driver's edge: what fails inside is told in the core's words."""
    try:
        yield
    except CallFailed as failed:
        raise failed.error from failed
