"""Questions about all VMs of a span of time, for sums of what they cost."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import ColumnElement, select

from vmrunner.ledger import rows
from vmrunner.ledger.database import Database
from vmrunner.ledger.instance_reads import parts_of
from vmrunner.ledger.labels import having
from vmrunner.ledger.readable import Readable, readable
from vmrunner.ledger.statements import Prepared, arg
from vmrunner.ledger.tables import IMAGES, INSTANCES, LABELS
from vmrunner.model import Instance, InstanceState, MadeImage

_i, _m, _l = INSTANCES.c, IMAGES.c, LABELS.c

_IMAGES = Prepared(
    lambda: select(*rows.IMAGE).where(_m.closed_at.is_(None) | (_m.closed_at >= arg("since")))
)


class Spending:
    def __init__(self, database: Database) -> None:
        self._database = database

    def instances(self, since: float, labels: Mapping[str, str]) -> Readable[Instance]:
        """Return the VMs that are there, or were after that time: all, or those of builds that have
        all these labels."""
        there: tuple[ColumnElement[bool], ...] = (
            _i.state != InstanceState.GONE.value,
            _i.gone_at >= since,
        )
        queries = [select(*rows.INSTANCE).where(one, *having(_i.build, labels)) for one in there]
        return self._database.read(
            lambda c: readable(rows.instance, [row for q in queries for row in c.execute(q)])
        )

    def images(self, since: float) -> Readable[MadeImage]:
        """Return the images whose builder is there, or was after that time."""
        return self._database.read(lambda c: readable(rows.image, _IMAGES(c, since=since).all()))

    def values(self, label: str, builds: Collection[str]) -> dict[str, str]:
        """Return the values of a label, by build."""
        queries = [
            select(_l.build, _l.value).where(_l.name == label, _l.build.in_(some))
            for some in parts_of(builds)
        ]
        return dict(
            self._database.read(lambda c: [(r[0], r[1]) for q in queries for r in c.execute(q)])
        )
