"""Budgets, and what of them is spent and held. A launch locks their rows, in order, before it lets
a VM in, so that launches count each other's.

A VM that is let in is charged: a row here for each budget that pays for it. Once it is gone, the
next launch moves what it cost into the sums of its days or months, and the charge goes: a launch
reads what is there, never all that ever was. Nothing here is written when a VM ends."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from vmrunner.core import budgets as rules
from vmrunner.core.budgets import Accounts, Overdraft
from vmrunner.errors import OverBudget
from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.database import Database
from vmrunner.ledger.events import add_event
from vmrunner.ledger.labels import forced_names, having
from vmrunner.ledger.row_reading import readable
from vmrunner.ledger.sql import Connection, delete, select, update
from vmrunner.ledger.statements import Prepared, arg, inserts, run
from vmrunner.ledger.tables import BUDGET_CHARGES, BUDGET_SPENT, BUDGETS, BUILDS, INSTANCES, LEDGER
from vmrunner.ledger.transfer_types import LaunchRequest
from vmrunner.model import (
    LOCAL_TENANT,
    Budget,
    BudgetAction,
    BudgetPeriod,
    BudgetState,
    EventKind,
    Instance,
    InstanceState,
    tenant_labels,
)
from vmrunner.model.principals import credited_labels

#: Seconds from a day or month to a later one, with which it is forgotten.
_KEPT: Final = 100 * 86_400.0

_b, _g, _c, _s, _i = BUILDS.c, BUDGETS.c, BUDGET_CHARGES.c, BUDGET_SPENT.c, INSTANCES.c

_INSERT = inserts(BUDGETS)
_SET = Prepared(
    lambda: (
        update(BUDGETS).where(_g.name == arg("name")).values(usd=arg("usd"), action=arg("action"))
    )
)
_ALL = Prepared(lambda: select(_g.name, _g.usd, _g.action).where(_g.actor == arg("actor")))
_DROP = (
    Prepared(lambda: delete(BUDGETS).where(_g.name == arg("name"))),
    Prepared(lambda: delete(BUDGET_CHARGES).where(_c.budget == arg("name"))),
    Prepared(lambda: delete(BUDGET_SPENT).where(_s.budget == arg("name"))),
)
_CHARGE = inserts(BUDGET_CHARGES)
_UNCHARGE = Prepared(
    lambda: delete(BUDGET_CHARGES).where(_c.budget == arg("budget"), _c.instance == arg("instance"))
)
_CHARGED = Prepared(
    lambda: (
        select(*codec.INSTANCE)
        .join_from(BUDGET_CHARGES, INSTANCES, _c.instance == _i.id)
        .where(_c.budget == arg("budget"))
    )
)
_SPENT = Prepared(
    lambda: select(_s.start, _s.usd).where(_s.budget == arg("budget"), _s.start >= arg("since"))
)
_ADD = Prepared(
    lambda: (
        update(BUDGET_SPENT)
        .where(_s.budget == arg("budget"), _s.start == arg("start"))
        .values(usd=_s.usd + arg("usd"))
    )
)
_FIRST = inserts(BUDGET_SPENT)
_FORGET = Prepared(
    lambda: delete(BUDGET_SPENT).where(_s.budget == arg("budget"), _s.start < arg("before"))
)


class Admission:
    """Lets VMs in within one transaction, which holds the budgets' rows from here on. `actors`: of
    the builds that these are for."""

    def __init__(
        self, connection: Connection, database: Database, actors: Iterable[str], now: float
    ) -> None:
        self._connection = connection
        if not database.sqlite:  # a budget that is being declared counts: see `_alone`
            run(connection, select(LEDGER.c.id).with_for_update(read=True, key_share=True))
        self._accounts = _accounts(connection, database, {"", *actors}, now, lock=True)
        self._forced = forced_names(connection)

    def check(
        self, row: Instance, labels: Mapping[str, str], actor: str, tenant: str
    ) -> tuple[list[str], list[Overdraft]]:
        """The names of the budgets that pay for this VM, and the overdrafts of those that only
        warn. `tenant`: the build's. Raises OverBudget."""
        names = self._accounts.concerned(credited_labels(labels, tenant, self._forced), actor)
        overdrafts = self._accounts.overdrafts(names, row, tenant_labels(tenant))
        if overdrafts and overdrafts[0].budget.action is BudgetAction.REFUSE:
            raise OverBudget(overdrafts[0].message)
        return names, overdrafts

    def check_launch(self, launch: LaunchRequest) -> tuple[list[str], list[Overdraft]]:
        """Do the same of a VM that is to be started."""
        return self.check(launch.instance, launch.labels, launch.actor, launch.tenant)

    def charge(self, row: Instance, names: list[str], warnings: Sequence[Overdraft]) -> None:
        """Count the VM, and note the warnings in its build's events."""
        for name in names:
            if not self._accounts.holds(name, row.id):
                _CHARGE(self._connection, budget=name, instance=row.id)
        self._accounts.hold(names, row)
        for overdraft in warnings if row.build is not None else ():
            add_event(
                self._connection, row.build or "", EventKind.BUDGET, row.created_at,
                budget=overdraft.budget.name, message=overdraft.message,
            )  # fmt: skip

    def release(self, instance: str) -> None:
        """Hold nothing for a VM that was refused, and whose row is closed in this transaction."""
        self._accounts.release(instance)


class Budgets:
    """The budgets of this ledger: those that were configured, and those of tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def declare(self, wanted: Sequence[Budget], now: float) -> None:
        """Take over a configuration: it replaces the former one. What builds of a new one have cost
        in the present day or month counts."""
        self._replace("", wanted, now)

    def _replace(self, actor: str, wanted: Sequence[Budget], now: float) -> None:
        """Let these be all budgets of one actor."""
        present = self._database.read(lambda c: _ALL(c, actor=actor).all())
        if set(present) == {(budget.name, budget.usd, budget.action.value) for budget in wanted}:
            return

        def work(connection: Connection) -> None:
            _alone(connection, self._database)
            present = {row[0]: row[1:] for row in _ALL(connection, actor=actor).all()}
            for budget in wanted:
                _put(connection, budget, present.pop(budget.name, None), now)
            for name in present:
                for drop in _DROP:
                    drop(connection, name=name)

        self._database.write(work)

    def limit(self, actor: str, usd_per_day: float | None, now: float) -> None:
        """Let what an actor submits cost no more than that a day, what it had before included;
        None: as much as it likes."""
        wanted = []
        if usd_per_day is not None:
            wanted = [Budget(usd=usd_per_day, period=BudgetPeriod.DAY, actor=actor)]
        self._replace(actor, wanted, now)

    def states(self, now: float) -> list[BudgetState]:
        """The states of the configured budgets."""
        return self._database.read(lambda c: _accounts(c, self._database, {""}, now).states(now))


def _alone(connection: Connection, database: Database) -> None:
    """Hold back launches until the transaction ends: they would not see a new budget. A launch
    under way comes first."""
    if not database.sqlite:
        run(connection, select(LEDGER.c.id).with_for_update())


def _put(
    connection: Connection, budget: Budget, stored: tuple[float, str] | None, now: float
) -> None:
    values = {"name": budget.name, "usd": budget.usd, "action": budget.action.value}
    if stored is not None:
        if stored != (budget.usd, budget.action.value):
            _SET(connection, **values)
        return
    match = json.dumps(dict(budget.match), sort_keys=True)
    _INSERT(connection, **values, period=budget.period.value, match=match, actor=budget.actor)
    since = rules.period(budget.period, now).start
    its = having(_i.build, budget.match)
    if budget.actor:
        its.append(_i.build.in_(select(_b.id).where(_b.actor == budget.actor)))
    forced = forced_names(connection)
    for condition in (_i.state != InstanceState.GONE.value, _i.gone_at >= since):
        wanted = select(_i.id, _b.tenant).join_from(
            INSTANCES, BUILDS, _b.id == _i.build, isouter=True
        )
        for instance, tenant in run(connection, wanted.where(condition, *its)).all():
            if budget.match == credited_labels(budget.match, tenant or LOCAL_TENANT, forced):
                _CHARGE(connection, budget=budget.name, instance=instance)


def _accounts(
    connection: Connection,
    database: Database,
    actors: set[str],
    now: float,
    *,
    lock: bool = False,
) -> Accounts:
    query = select(_g.name, _g.usd, _g.action, _g.period, _g.match, _g.actor)
    query = query.where(_g.actor.in_(sorted(actors))).order_by(_g.name)
    if lock and not database.sqlite:  # which has one writer anyway
        query = query.with_for_update()
    budgets = {row[0]: _budget(row) for row in run(connection, query).all()}
    spent: defaultdict[tuple[str, float], float] = defaultdict(float)
    live: dict[str, dict[str, Instance]] = {}
    for name, budget in budgets.items():
        since = rules.period(budget.period, now).start
        for start, usd in _SPENT(connection, budget=name, since=since).all():
            spent[name, start] += usd
        found = readable(codec.instance, _CHARGED(connection, budget=name).all())
        live[name] = {row.id: row for row in found if row.state is not InstanceState.GONE}
        for row in found:
            if row.state is InstanceState.GONE:
                for span, usd in rules.settled(row, budget.period).items():
                    spent[name, span.start] += usd
                    if lock:
                        _add(connection, name, span.start, usd)
                if lock:
                    _UNCHARGE(connection, budget=name, instance=row.id)
    return Accounts(budgets, spent, live)


def _add(connection: Connection, budget: str, start: float, usd: float) -> None:
    where = {"budget": budget, "start": start, "usd": usd}
    if usd and not _ADD(connection, **where).rowcount:
        _FIRST(connection, **where)
        _FORGET(connection, budget=budget, before=start - _KEPT)


def _budget(row: Any) -> Budget:
    return Budget(
        usd=row[1],
        action=BudgetAction(row[2]),
        period=BudgetPeriod(row[3]),
        match=json.loads(row[4]),
        actor=row[5],
    )
