"""Builds of lists as JSON: one that is as it was when a list had it last is not written anew."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from vmrunner.services.documents import listed_document

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vmrunner.model import BuildRecord, Start
    from vmrunner.services.document_types import ListedBuildDocument

MOST_LISTED: Final = 1024  # documents that are kept
LISTED_BYTES: Final = 16 << 10  # bytes of each


class _Shown(NamedTuple):
    """A document as JSON, and what it was made of."""

    build: BuildRecord
    beside: tuple[str, Start | None, str | None]
    text: bytes


class ListedBuilds:
    """Keeps the JSON of the builds that lists had last. Safe in threads."""

    def __init__(self, write: Callable[[ListedBuildDocument], bytes]) -> None:
        """`write`: a document as JSON."""
        self._write = write
        self._lock = threading.Lock()
        self._kept = OrderedDict[str, _Shown]()

    def text(
        self, build: BuildRecord, names: Mapping[str, str], start: Start | None, waiting: str | None
    ) -> bytes:
        """A build's document. `names`: of actors; `waiting`: why it is queued. A row that did not
        change is the same `BuildRecord`: nothing else tells so cheaply that it is as it was."""
        beside = (names.get(build.actor, ""), start, waiting)
        kept = self._kept.get(build.id)
        if kept is not None and kept.build is build and kept.beside == beside:
            return kept.text
        named = replace(build, actor_name=beside[0])
        text = self._write(listed_document(named, start, waiting))
        if len(text) <= LISTED_BYTES:
            with self._lock:
                self._kept[build.id] = _Shown(build, beside, text)
                self._kept.move_to_end(build.id)
                if len(self._kept) > MOST_LISTED:
                    self._kept.popitem(last=False)
        return text
