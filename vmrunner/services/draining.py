"""A stop of launching, everywhere; what runs goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vmrunner.lib import process

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger


def drain(ledger: Ledger, *, off: bool, by: str = "") -> None:
    """Stop launching, or with `off` go on. `by`: for whom, else this process's user."""
    now = time.time()
    ledger.pause(not off, now)
    ledger.actions.add(by or process.user(), "undrain" if off else "drain", "all", now)
