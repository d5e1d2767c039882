"""Small charts of the page, as shapes that a template draws: no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 600.0
HEIGHT: Final = 100.0
_GAP: Final = 0.22  # of a column


@dataclass(frozen=True, kw_only=True, slots=True)
class ChartColumn:
    """A column of a chart. `parts`: heights from below, by how they look; `title`: in words."""

    title: str
    tick: str
    parts: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A rectangle. `kind`: how it looks."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Bars within `WIDTH` by `HEIGHT`. `ticks`: words below, of the first, the middle and the last
    column; `top`: what the highest bar is; `summary`: the whole in words; `rows`: its numbers."""

    bars: Sequence[Bar]
    ticks: Sequence[str]
    top: str
    summary: str
    rows: Sequence[tuple[str, str]]


def chart(columns: Sequence[ChartColumn], *, top: str, summary: str) -> Chart:
    """Return a chart of bars that stand on each other. Without any height it has no bars."""
    highest = max((sum(column.parts.values()) for column in columns), default=0.0)
    step = WIDTH / max(len(columns), 1)
    bars = []
    for number, column in enumerate(columns):
        floor = HEIGHT
        for kind, value in column.parts.items():
            if value <= 0 or highest <= 0:
                continue
            height = max(value / highest * HEIGHT, 1.5)  # to be seen
            floor -= height
            bars.append(
                Bar(
                    x=round(number * step + step * _GAP / 2, 2),
                    y=round(max(floor, 0.0), 2),
                    width=round(step * (1 - _GAP), 2),
                    height=round(height, 2),
                    kind=kind,
                    title=column.title,
                )
            )
    ticks = [column.tick for column in columns]
    shown = [ticks[0], ticks[len(ticks) // 2], ticks[-1]] if ticks else []
    rows = [(column.tick, column.title) for column in columns if sum(column.parts.values()) > 0]
    return Chart(bars=bars, ticks=shown, top=top, summary=summary, rows=rows)
