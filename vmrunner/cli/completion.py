"""Shell completion of ids. It never fails: with no ledger there is nothing to complete."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vmrunner.errors import VmrunnerError

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger


def build_ids(incomplete: str) -> list[tuple[str, str]]:
    """The newest builds, with name or command."""
    return [(id_, text) for id_, text in _builds() if id_.startswith(incomplete)]


def instance_ids(incomplete: str) -> list[str]:
    """The open instances."""
    found: list[str] = []
    with contextlib.suppress(VmrunnerError, OSError), _ledger() as ledger:
        found = [row.id for row in ledger.instances.open() if row.id.startswith(incomplete)]
    return found


def _builds() -> Iterator[tuple[str, str]]:
    with contextlib.suppress(VmrunnerError, OSError), _ledger() as ledger:
        for row in ledger.builds.list(limit=50):
            yield row.id, row.spec.name or row.spec.title[:40]


@contextlib.contextmanager
def _ledger() -> Iterator[Ledger]:
    from vmrunner.config import sources
    from vmrunner.runtime.app import App

    app = App(sources.load().settings)
    try:
        yield app.ledger
    finally:
        app.close()
