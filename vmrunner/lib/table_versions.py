"""The versions of a ledger's tables that this code knows."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

#: Alembic's: a file begins with the number of its version.
MIGRATIONS: Final = Path(__file__).parent.parent / "ledger" / "migrations"


@cache
def known() -> list[str]:
    """All of them, oldest first. Read once: an upgrade of the program writes others where they
    are."""
    files = (MIGRATIONS / "versions").glob("[0-9]*_*.py")
    return sorted(path.name.partition("_")[0] for path in files)
