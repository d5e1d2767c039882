"""Tables of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request, Response

from vmrunner.server.html import rendered


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A cell of a table: text, or markup such as a time. `kind`: how it looks: a state, `wrap`,
    `named` (wraps too; a phone shows its column's name), `number` (at the right, as is its column's
    name), or several such words; `chips`: words that stand apart."""

    text: object = ""
    kind: str = ""
    link: str = ""
    chips: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RowAction:
    """A button of a row."""

    name: str
    post: str
    ask: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """A row. `key`: names it on the page, so that it stays what it is when the rows are shown
    anew."""

    cells: Sequence[Cell]
    key: str = ""
    actions: Sequence[RowAction] = field(default_factory=tuple)


@dataclass(frozen=True, kw_only=True, slots=True)
class TableLink:
    """A link above a table, to the same of other rows."""

    text: str
    link: str
    here: bool = False


def table(
    request: Request, title: str, columns: Sequence[str], rows: Sequence[TableRow], **more: Any
) -> Response:
    """Return a page with one table."""
    options = {"note": "", "empty": "Nothing here.", "live": True, "links": (), **more}
    actions = any(row.actions for row in rows)
    name = options.pop("template", "table.html")
    return rendered(
        request, name, title=title, columns=columns, rows=rows, actions=actions, **options
    )
