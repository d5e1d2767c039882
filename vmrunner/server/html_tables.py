"""Tables of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request, Response

from vmrunner.server.html import rendered


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A cell of a table. `kind`: how it looks."""

    text: object
    kind: str = ""
    link: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowAction:
    """A button of a row."""

    name: str
    post: str
    ask: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    cells: Sequence[Cell]
    actions: Sequence[RowAction] = field(default_factory=tuple)


def table(
    request: Request, title: str, columns: Sequence[str], rows: Sequence[TableRow], **more: Any
) -> Response:
    """Return a page with one table."""
    options = {"note": "", "empty": "Nothing here.", "live": True, "links": (), **more}
    actions = any(row.actions for row in rows)
    return rendered(
        request, "table.html", title=title, columns=columns, rows=rows, actions=actions, **options
    )
