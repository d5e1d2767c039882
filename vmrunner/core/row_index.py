"""Rows by the resources that they are about: by tag, or by recorded reference. Pure.

A cloud may show no name of ours on a VM (its system has no tags, or somebody took them off): the
row has the reference all the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from vmrunner.model import Instance, InstanceState, Kind, Ref, Resource


class RowIndex:
    """An index over rows. A reference counts only while its row is open: ids may come again."""

    def __init__(self, rows: Iterable[Instance]) -> None:
        self._by_id: dict[str, Instance] = {}
        self._by_ref: dict[Ref, Instance] = {}
        for row in rows:
            self._by_id[row.id] = row
            if row.ref is not None and row.state is not InstanceState.GONE:
                other = self._by_ref.get(row.ref)
                self._by_ref[row.ref] = row if other is None else min(row, other, key=_id)

    def of(self, resource: Resource) -> Instance | None:
        """The row of a resource: the one that its tag names, else the one that recorded it or, of a
        child, its VM."""
        return self._by_id.get(resource.instance or "") or self._recorded(resource)

    def differs(self, resource: Resource) -> Instance | None:
        """The row that recorded a VM whose tag names another row."""
        named, recorded = self._by_id.get(resource.instance or ""), self._recorded(resource)
        return recorded if named and recorded and named.id != recorded.id else None

    def _recorded(self, resource: Resource) -> Instance | None:
        return next((self._by_ref[r] for r in refs_of(resource) if r in self._by_ref), None)


def _id(row: Instance) -> str:
    return row.id


def refs_of(resource: Resource) -> list[Ref]:
    """The references by which a row may have recorded a resource: its own, or its VM's."""
    several = (resource.ref, resource.parent)
    return [ref for ref in several if ref is not None and ref.kind is Kind.INSTANCE]
