"""Statements that were compiled ahead, for SQLite and for PostgreSQL: `scripts/statements` writes
them into `frozen/`, from the statements that the modules of the ledger hold.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vmrunner.ledger.statements import Prepared

DIRECTORY: Final = Path(__file__).with_name("compiled")
NEW_LEDGER: Final = DIRECTORY / "new_ledger.json"


def find(statement: Prepared, dialect: str) -> tuple[str, dict[str, Any], bool] | None:
    """The text of a statement, the values that it has itself, and whether it changes revisions.
    None: it was made for one occasion, or is not among them."""
    name = statement.name or _names(statement.module).get(id(statement), "")
    found: tuple[str, dict[str, Any], bool] | None = _texts(dialect).get(name)
    return found


def named(module: str) -> Iterator[tuple[str, Prepared]]:
    """The statements that a module holds, by their names in it: also those in a tuple, in a mapping
    and in a value that has some as its attributes."""
    from vmrunner.ledger.statements import Prepared

    short = module.rpartition(".")[2]
    for name, value in vars(sys.modules[module]).items():
        parts: dict[str, Any] = {"": value}
        if isinstance(value, tuple):
            parts = {f"[{at}]": part for at, part in enumerate(value)}
        elif isinstance(value, dict):
            parts = {f"[{key}]": part for key, part in value.items()}
        elif type(value).__module__ == module:
            parts = {f".{key}": part for key, part in getattr(value, "__dict__", {}).items()}
        for part, statement in parts.items():
            if isinstance(statement, Prepared) and (statement.name or statement.module == module):
                yield statement.name or f"{short}.{name}{part}", statement


def new_ledger() -> list[str]:
    """The statements that make the tables of a new SQLite ledger, with their version; none where
    they were not written."""
    try:
        found: list[str] = json.loads(NEW_LEDGER.read_text())
    except FileNotFoundError:
        return []
    return found


@cache
def _names(module: str) -> dict[int, str]:
    return {id(statement): name for name, statement in named(module)}


@cache
def _texts(dialect: str) -> dict[str, Any]:
    try:
        text = (DIRECTORY / f"{dialect}.json").read_text()
    except FileNotFoundError:
        return {}
    found: dict[str, Any] = json.loads(text)
    return found
