"""Labels of builds, to find them by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, select

from vmrunner.ledger.tables import LABELS

_l = LABELS.c


def having(build: ColumnElement[Any], labels: Mapping[str, str]) -> list[ColumnElement[bool]]:
    """Return the conditions under which the build in that column has all these labels."""
    return [
        build.in_(select(_l.build).where(_l.name == name, _l.value == value))
        for name, value in labels.items()
    ]
