"""Questions about all VMs of a span of time, for sums of what they cost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import ColumnElement, Connection, select

from vmrunner.core import cost_report
from vmrunner.ledger import past_costs, rows
from vmrunner.ledger.database import Database
from vmrunner.ledger.instance_reads import parts_of
from vmrunner.ledger.labels import forced_names, owned_by
from vmrunner.ledger.readable import Readable, readable
from vmrunner.ledger.statements import Prepared, arg
from vmrunner.ledger.tables import BUILDS, IMAGES, INSTANCES, LABELS
from vmrunner.model import Instance, InstanceState, MadeImage
from vmrunner.model.principals import TRUSTED_TENANTS, credited_labels, tenant_labels

_b, _i, _m, _l = BUILDS.c, INSTANCES.c, IMAGES.c, LABELS.c

_IMAGES = Prepared(
    lambda: select(*rows.IMAGE).where(_m.closed_at.is_(None) | (_m.closed_at >= arg("since")))
)


class Spending:
    def __init__(self, database: Database) -> None:
        self._database = database

    def instances(self, since: float, own: Mapping[str, str]) -> Readable[Instance]:
        """Return the VMs that are there, or were after that time: all, or those of builds of the
        principal with this label filter."""
        there: tuple[ColumnElement[bool], ...] = (
            _i.state != InstanceState.GONE.value,
            _i.gone_at >= since,
        )
        queries = [select(*rows.INSTANCE).where(one, *owned_by(_i.build, own)) for one in there]
        return self._database.read(
            lambda c: readable(rows.instance, [row for q in queries for row in c.execute(q)])
        )

    def images(self, since: float) -> Readable[MadeImage]:
        """Return the images whose builder is there, or was after that time."""
        return self._database.read(lambda c: readable(rows.image, _IMAGES(c, since=since).all()))

    def values(self, label: str, builds: Collection[str]) -> dict[str, str]:
        """Return the values of a label, by build: of one that tokens force, those of builds whose
        own it is."""
        queries = [
            select(_l.build, _l.value, _b.tenant)
            .join_from(LABELS, BUILDS, _b.id == _l.build)
            .where(_l.name == label, _l.build.in_(some))
            for some in parts_of(builds)
        ]

        def work(connection: Connection) -> dict[str, str]:
            forced = forced_names(connection)
            rows = (row for query in queries for row in connection.execute(query))
            return {
                build: value
                for build, value, tenant in rows
                if credited_labels({label: value}, tenant, forced)
            }

        return self._database.read(work)

    def days(
        self, since: float, own: Mapping[str, str]
    ) -> list[tuple[cost_report.DayKey, cost_report.DaySum]]:
        """Return the sums of days, from that midnight on, of VMs that have no row any more: all, or
        those of builds of the principal with this label filter."""
        found = self._database.read(lambda c: past_costs.since(c, since))
        return (
            [
                (key, day)
                for key, day in found
                if own.items() <= dict(key.owner.labels).items()
                and (
                    key.owner.tenant in TRUSTED_TENANTS
                    or own.items() <= tenant_labels(key.owner.tenant).items()
                )
            ]
            if own
            else found
        )

    def credited(
        self, label: str, owners: Iterable[cost_report.Owner]
    ) -> dict[cost_report.Owner, str]:
        """Return the values of a label, by owner, as `values` does of builds."""
        forced = self._database.read(forced_names)
        return {
            one: value
            for one in owners
            if (value := dict(one.labels).get(label)) is not None
            and credited_labels({label: value}, one.tenant, forced)
        }
