"""Questions about all VMs of a span of time, for sums of what they cost."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from vmrunner.core import cost_report, pricing
from vmrunner.core.cost_report import DayKey, DaySum, Owner, Spent
from vmrunner.ledger import row_codec as codec
from vmrunner.ledger import spent_rows
from vmrunner.ledger.database import Database
from vmrunner.ledger.day_sums import GONE, SUMMED
from vmrunner.ledger.instance_reads import parts_of
from vmrunner.ledger.labels import forced_names, owned_by
from vmrunner.ledger.row_reading import Readable, readable
from vmrunner.ledger.sql import (
    ColumnElement,
    Connection,
    Statement,
    case,
    false,
    func,
    select,
    true,
)
from vmrunner.ledger.statements import Prepared, arg, run
from vmrunner.ledger.tables import BUILDS, IMAGES, INSTANCES, LABELS
from vmrunner.model import Instance, InstanceState, MadeImage
from vmrunner.model.principals import TRUSTED_TENANTS, credited_labels, tenant_labels

_b, _i, _m, _l = BUILDS.c, INSTANCES.c, IMAGES.c, LABELS.c
_o = INSTANCES.alias("others").c
_SOONEST = _o.created_at + pricing.MINIMUM
_BUILD_END = (
    select(func.max(case((_o.gone_at > _SOONEST, _o.gone_at), else_=_SOONEST)))
    .where(_o.build == _i.build, _o.ref.is_not(None))
    .scalar_subquery()
)


def _open(mine: Collection[ColumnElement[bool]] = ()) -> Statement:
    return select(*codec.INSTANCE).where(_i.state != InstanceState.GONE.value, *mine)


def _never_summed(mine: Collection[ColumnElement[bool]] = ()) -> Statement:
    return _gone(_i.summed.is_(None), mine)


def _unsummed(mine: Collection[ColumnElement[bool]] = ()) -> Statement:
    return _gone(_i.summed == false(), mine)


def _gone(summed: ColumnElement[bool], mine: Collection[ColumnElement[bool]]) -> Statement:
    return select(*spent_rows.COLUMNS).where(summed, _i.gone_at >= arg("earliest"), *mine)


def _cut(mine: Collection[ColumnElement[bool]] = ()) -> Statement:
    """VMs that are in the sums of days, of a day in which the time lies."""
    return select(*spent_rows.COLUMNS, _BUILD_END).where(
        _i.summed == true(),
        _i.gone_at >= arg("earliest"),
        *mine,
        _i.gone_at < arg("longest"),
        _i.created_at < arg("whole"),
    )


_SINCE = Prepared(_open), Prepared(_never_summed), Prepared(_unsummed), Prepared(_cut)
_IMAGES = Prepared(
    lambda: select(*codec.IMAGE).where(_m.closed_at.is_(None) | (_m.closed_at >= arg("since")))
)


class SpendingRows(NamedTuple):
    """The VMs of a report of costs, read at one moment. `open`: those that are not gone. `spent`:
    others, by their rows. `days`: sums of yet others."""

    open: Readable[Instance]
    spent: Readable[Spent]
    days: list[tuple[DayKey, DaySum]]


class Spending:
    def __init__(self, database: Database) -> None:
        self._database = database

    def since(self, moment: float, own: Mapping[str, str]) -> SpendingRows:
        """Costs of VMs that are there, or were after that time: of all, or of those of builds of
        the principal with this label filter. Of VMs whose rows are gone the whole day counts in
        which that time lies."""
        first, whole = cost_report.midnight(moment), cost_report.next_midnight(moment)
        earliest = moment - pricing.MINIMUM  # the last minute may be billed whole
        longest = whole + cost_report.LONGEST_SUMMED
        statements: Sequence[Prepared] = _SINCE
        if own:
            mine = owned_by(_i.build, own)
            statements = [
                Prepared(partial(make, mine)) for make in (_open, _never_summed, _unsummed, _cut)
            ]
        still, *counted, cut = statements

        def work(connection: Connection) -> SpendingRows:
            found = [row for each in counted for row in each(connection, earliest=earliest).all()]
            parted = (
                cut(connection, earliest=earliest, longest=longest, whole=whole).all()
                if first < whole
                else []
            )
            days = GONE.between(connection, first, whole)
            days += SUMMED.between(connection, whole, math.inf)
            spent = readable(spent_rows.spent, found)
            spent += readable(lambda row: spent_rows.spent(row, whole), parted)
            return SpendingRows(readable(codec.instance, still(connection).all()), spent, days)

        found = self._database.read(work, snapshot=True)
        return found._replace(days=_visible(found.days, own))

    def images(self, since: float) -> Readable[MadeImage]:
        """The images whose builder is open, or was after that time."""
        return self._database.read(lambda c: readable(codec.image, _IMAGES(c, since=since).all()))

    def values(self, label: str, builds: Collection[str]) -> dict[str, str]:
        """Return the values of a label, by build: of one that tokens force, those of builds whose
        own it is."""
        # By builds alone: with the label's name SQLite reads all builds that have such a label, for
        # each part of these.
        queries = [
            select(_l.name, _l.build, _l.value, _b.tenant)
            .join_from(LABELS, BUILDS, _b.id == _l.build)
            .where(_l.build.in_(some))
            for some in parts_of(builds)
        ]

        def work(connection: Connection) -> dict[str, str]:
            forced = forced_names(connection)
            rows = (row for query in queries for row in run(connection, query))
            return {
                build: value
                for name, build, value, tenant in rows
                if name == label and credited_labels({label: value}, tenant, forced)
            }

        return self._database.read(work)

    def credited(self, label: str, owners: Iterable[Owner]) -> dict[Owner, str]:
        """Return the values of a label, by owner, as `values` does of builds."""
        forced = self._database.read(forced_names)
        return {
            owner: value
            for owner in owners
            if (value := dict(owner.labels).get(label)) is not None
            and credited_labels({label: value}, owner.tenant, forced)
        }


def _visible(
    days: list[tuple[DayKey, DaySum]], own: Mapping[str, str]
) -> list[tuple[DayKey, DaySum]]:
    """Return the sums of builds of the principal with this label filter; without one, all."""
    return [
        (key, day)
        for key, day in days
        if not own
        or (
            own.items() <= dict(key.owner.labels).items()
            and (
                key.owner.tenant in TRUSTED_TENANTS
                or own.items() <= tenant_labels(key.owner.tenant).items()
            )
        )
    ]
