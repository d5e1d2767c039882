"""Ids of a fault world: by its own clock and drawn from a seed, so that whatever is ordered by id
comes in the same order each time that the world is played."""

from __future__ import annotations

from random import Random
from typing import Final

from ulid import ULID

from vmrunner.lib import ids
from vmrunner.providers.fake import Clock

_MADE: Final = ids._new


def draw(clock: Clock) -> None:
    """Draw all new ids of this process, until `stop`."""
    random = Random(0)

    def drawn() -> str:
        moment = int(clock() * 1000).to_bytes(6, "big")
        return str(ULID.from_bytes(moment + random.randbytes(10))).lower()

    ids._new = drawn


def stop() -> None:
    """Let ids be made as ever."""
    ids._new = _MADE
