"""Budgets in the ledger: what is let in never costs more than there is, whoever launches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.ledger_builds import ACCESS, OFFER, launch, orders, ref, spec, submitted
from tests.support.pools import POOL, instance
from vmrunner.errors import OverBudget
from vmrunner.ledger import LaunchRequest, Ledger, budgets
from vmrunner.ledger.pool_vms import lease
from vmrunner.ledger.sql import select
from vmrunner.ledger.statements import run
from vmrunner.ledger.tables import BUDGET_SPENT
from vmrunner.model import (
    LOCAL_TENANT,
    Budget,
    BudgetAction,
    BudgetPeriod,
    Death,
    EventKind,
    InstanceState,
    PriceSource,
    Principal,
    Rate,
    Reason,
    Result,
)

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0
#: A VM of these may cost one dollar: it lives an hour at most.
RATE = Rate(usd_hour=1.0, parked_usd_hour=0.1, source=PriceSource.CLOUD, at=NOON)
DAILY = Budget(usd=2.0, period=BudgetPeriod.DAY)
TEAM = Budget(usd=2.0, period=BudgetPeriod.DAY, match={"team": "a"})


def wished(
    ledger: Ledger,
    name: str,
    now: float = NOON,
    rate: Rate = RATE,
    actor: str = "",
    tenant: str = LOCAL_TENANT,
    **changes: Any,
) -> LaunchRequest:
    """The launch of a new build, for an hour at most."""
    build, _ = ledger.builds.submit(
        spec(**changes), id=f"b-{name}", now=10.0, actor=actor, tenant=tenant
    )
    made = launch(ledger, build.id, f"vm-{name}", now=now)
    deadline = now + HOUR
    return replace(
        made,
        instance=replace(made.instance, rate=rate, deadline=deadline),
        order=replace(made.order, deadline=deadline),
        labels=build.spec.labels,
        actor=build.actor,
        tenant=build.tenant,
    )


def let_in(ledger: Ledger, *launches: LaunchRequest) -> int:
    return len(ledger.instances.start(list(launches), until=NOON + 9e6))


def over(ledger: Ledger, name: str, now: float, *, lived: bool = True) -> None:
    """The build ends, and its VM is gone."""
    if lived:
        ledger.instances.record([(f"vm-{name}", 1, ref(f"i-{name}"))], now)
    values = {"result": Result.SUCCESS, "reason": Reason.EXIT_CODE}
    ledger.builds.finish(f"b-{name}", epoch=1, now=now, death=Death.DONE, **values)
    assert ledger.instances.close(f"vm-{name}", epoch=2, death=Death.DONE, now=now)


def held(ledger: Ledger, now: float = NOON) -> dict[str, float]:
    return {state.budget.name: round(state.held, 6) for state in ledger.budgets.states(now)}


def test_what_runs_holds_money_until_its_deadline(ledger: Ledger) -> None:
    ledger.budgets.declare([DAILY], NOON)
    started = ledger.instances.start([wished(ledger, str(n)) for n in range(3)], until=9e9)
    assert [instance.id for _, instance in started] == ["vm-0", "vm-1"]
    assert started.over_budget == {
        "vm-2": "budget day: of $2.00 for 2026-11-27 $2.00 are spent or held, and this VM may "
        "cost $1.00 until its deadline; a shorter ttl holds less"
    }
    assert held(ledger) == {"day": 2.0}
    assert ledger.builds.get("b-2").state == "queued"


def test_a_tenant_is_not_told_what_others_cost(ledger: Ledger) -> None:
    """A budget that pays for its builds alone tells all."""
    team = replace(DAILY, match={"team": "a"})
    ledger.budgets.declare([replace(DAILY, usd=0.5), replace(team, usd=0.4)], NOON)
    request = wished(ledger, "1", labels={"team": "a"})

    def refusal(**labels: str) -> str:
        tenant = Principal(actor="token:t", scopes=frozenset(), labels=labels).tenant
        started = ledger.instances.start([replace(request, tenant=tenant)], until=9e9)
        return started.over_budget["vm-1"]

    assert "of $0.50" in refusal()
    assert refusal(team="a") == (
        "budget day: too little is left for 2026-11-27, and this VM may cost $1.00 until its "
        "deadline; a shorter ttl holds less"
    )
    ledger.budgets.declare([replace(team, usd=0.4)], NOON)
    assert "of $0.40" in refusal(team="a")
    assert "$0.40" not in refusal(team="a", user="x")


def test_a_vm_that_is_gone_holds_what_it_cost(ledger: Ledger) -> None:
    ledger.budgets.declare([DAILY], NOON)
    assert let_in(ledger, wished(ledger, "1"), wished(ledger, "2")) == 2
    over(ledger, "1", NOON + HOUR / 4)
    assert held(ledger) == {"day": 1.25}
    assert let_in(ledger, wished(ledger, "3")) == 0
    over(ledger, "2", NOON, lived=False)  # the provider never had it
    assert let_in(ledger, wished(ledger, "4")) == 1
    assert held(ledger) == {"day": 1.25}


def test_labels_say_who_pays(ledger: Ledger) -> None:
    ledger.budgets.declare([TEAM, replace(DAILY, usd=4.0)], NOON)
    for n in range(2):
        assert let_in(ledger, wished(ledger, f"a{n}", labels={"team": "a", "x": "y"})) == 1
    assert let_in(ledger, wished(ledger, "a2", labels={"team": "a"})) == 0
    assert let_in(ledger, wished(ledger, "b0", labels={"team": "b"})) == 1
    assert let_in(ledger, wished(ledger, "c0")) == 1
    assert let_in(ledger, wished(ledger, "c1")) == 0
    assert held(ledger) == {"day": 4.0, "day team=a": 2.0}


def test_a_worn_label_is_paid_by_nobody_else(ledger: Ledger) -> None:
    """What a tenant says under a name that tokens force is no word of who is worn; any other label
    counts as it is said."""
    night = replace(TEAM, match={"night": "1"})
    labels = {"team": "a", "night": "1"}
    ledger.tokens.create("t", frozenset(), by="test", now=0.0, labels={"team": "a"})
    tenants = ['{"repository": "r"}', '{"TEAM": "a"}', '{"team": "a"}', "local", "unfiltered"]
    first = [wished(ledger, str(n), tenant=t, labels=labels) for n, t in enumerate(tenants)]
    assert let_in(ledger, *first) == 5
    ledger.budgets.declare([replace(TEAM, usd=4.0), replace(night, usd=9.0)], NOON)
    assert held(ledger) == {"day team=a": 3.0, "day night=1": 5.0}, "those that ran before it"
    evil, own = (
        wished(ledger, n, tenant=t, labels=labels)
        for n, t in (("5", tenants[0]), ("6", tenants[2]))
    )
    assert let_in(ledger, evil, own) == 2
    assert held(ledger) == {"day team=a": 4.0, "day night=1": 7.0}


@pytest.mark.parametrize("action", list(BudgetAction))
def test_an_unknown_price_is_refused_where_a_budget_refuses(
    ledger: Ledger, action: BudgetAction
) -> None:
    ledger.budgets.declare([replace(DAILY, action=action)], NOON)
    started = ledger.instances.start([wished(ledger, "1", rate=Rate())], until=9e9)
    assert len(started) == (action is BudgetAction.WARN)
    if action is BudgetAction.REFUSE:
        assert "the price of small at local is unknown" in started.over_budget["vm-1"]


def test_ones_own_machine_needs_no_money(ledger: Ledger) -> None:
    ledger.budgets.declare([replace(DAILY, usd=0.0)], NOON)
    own = Rate(usd_hour=0.0, parked_usd_hour=0.0, source=PriceSource.OWN)
    assert let_in(ledger, wished(ledger, "1", rate=own)) == 1
    assert let_in(ledger, wished(ledger, "2")) == 0


def test_one_that_warns_lets_in_and_says_so(ledger: Ledger) -> None:
    ledger.budgets.declare([replace(DAILY, usd=0.5, action=BudgetAction.WARN)], NOON)
    assert let_in(ledger, wished(ledger, "1")) == 1
    [event] = [event for event in ledger.events.list("b-1") if event.kind == EventKind.BUDGET]
    assert event.data["budget"] == "day warn"
    assert "may cost $1.00" in str(event.data["message"])


def test_one_warns_and_another_refuses_later(ledger: Ledger) -> None:
    warns = replace(DAILY, usd=0.5, action=BudgetAction.WARN)
    ledger.budgets.declare([replace(DAILY, usd=1.0), warns], NOON)
    assert let_in(ledger, wished(ledger, "1")) == 1
    assert EventKind.BUDGET in {event.kind for event in ledger.events.list("b-1")}
    assert let_in(ledger, wished(ledger, "2")) == 0


def test_each_day_has_its_own_money(ledger: Ledger) -> None:
    """One that may live past midnight needs money of both days."""
    late = NOON + 11.5 * HOUR
    ledger.budgets.declare([replace(DAILY, usd=1.0)], late)
    assert let_in(ledger, wished(ledger, "1", late)) == 1
    assert let_in(ledger, wished(ledger, "2", late)) == 1
    assert let_in(ledger, wished(ledger, "3", late)) == 0
    assert held(ledger, late) == {"day": 1.0}
    assert let_in(ledger, wished(ledger, "4", late + HOUR)) == 0, "the next day is full too"
    over(ledger, "1", late + HOUR)
    over(ledger, "2", late + HOUR / 2)
    assert held(ledger, late + HOUR) == {"day": 0.5}
    assert let_in(ledger, wished(ledger, "5", late + 25 * HOUR)) == 1


def test_days_that_are_long_over_are_forgotten(ledger: Ledger) -> None:
    ledger.budgets.declare([DAILY], NOON)
    for n, day in enumerate((0, 60, 120)):
        now = NOON + day * 24 * HOUR
        assert let_in(ledger, wished(ledger, str(n), now)) == 1
        over(ledger, str(n), now + HOUR)
    assert let_in(ledger, wished(ledger, "last", NOON + 121 * 24 * HOUR)) == 1
    table = ledger.budgets._database.read(lambda c: run(c, select(BUDGET_SPENT.c.start)).all())
    assert len(table) == 2


def test_a_night_needs_money_of_both_days(ledger: Ledger) -> None:
    late = NOON + 11.9 * HOUR
    ledger.budgets.declare([replace(DAILY, usd=1.0)], late)
    started = ledger.instances.start([wished(ledger, str(n), late) for n in range(2)], until=9e9)
    assert len(started) == 1
    assert "of $1.00 for 2026-11-28 $0.90 are spent or held" in started.over_budget["vm-1"]


def test_a_month_is_longer_than_a_day(ledger: Ledger) -> None:
    ledger.budgets.declare([replace(DAILY, period=BudgetPeriod.MONTH)], NOON)
    for n in range(2):
        assert let_in(ledger, wished(ledger, str(n), NOON + n * 24 * HOUR)) == 1
        over(ledger, str(n), NOON + n * 24 * HOUR + HOUR)
    assert let_in(ledger, wished(ledger, "2", NOON + 48 * HOUR)) == 0
    assert let_in(ledger, wished(ledger, "3", NOON + 96 * HOUR)) == 1  # December


def test_a_retry_and_another_offer_need_money_too(ledger: Ledger) -> None:
    ledger.budgets.declare([replace(DAILY, usd=1.0)], NOON)
    first = wished(ledger, "1")
    assert let_in(ledger, first) == 1
    dear = replace(RATE, usd_hour=1.5)

    def other(name: str, rate: Rate) -> LaunchRequest:
        made = replace(first.instance, id=name, rate=rate)
        order = replace(first.order, instance=name)
        return replace(first, seen_epoch=1, instance=made, order=order)

    with pytest.raises(OverBudget, match=r"may cost \$1.50"):
        ledger.instances.next_offer("vm-1", other("vm-dear", dear), now=NOON)
    assert ledger.instances.get("vm-1").gone_at is None, "nothing was written"
    ledger.instances.next_offer("vm-1", other("vm-same", RATE), now=NOON)
    assert held(ledger) == {"day": 1.0}


def filled(ledger: Ledger, name: str) -> bool:
    """A VM for the pool, for two hours at most. True if it was let in; then it waits."""
    ledger.pools.declare({"fast": POOL}, "e-1", NOON)
    assert ledger.engines.acquire(lease("fast"), "e-1", NOON + 30)
    new = instance(
        id=name, state=InstanceState.REQUESTED, created_at=NOON, deadline=NOON + 2 * HOUR, rate=RATE
    )
    order, _ = orders(ledger).for_pool(POOL, name, OFFER, new.deadline)
    request = LaunchRequest(build_id=None, seen_epoch=0, instance=new, order=order, access=ACCESS)
    started = ledger.instances.start([request], until=9e9)
    ledger.instances.record([(row.id, 1, ref(row.id)) for _, row in started], NOON)
    return bool(started) and ledger.pools.ready(name, epoch=1, now=NOON)


def test_a_pool_fills_within_budgets_of_all(ledger: Ledger) -> None:
    ledger.budgets.declare([replace(DAILY, usd=3.0), replace(TEAM, usd=0.0)], NOON)
    assert filled(ledger, "vm-1")
    assert not filled(ledger, "vm-2")
    assert held(ledger) == {"day": 2.0, "day team=a": 0.0}


def test_a_claim_needs_money_of_its_builds_budgets(ledger: Ledger) -> None:
    ledger.budgets.declare([DAILY, replace(TEAM, usd=0.5)], NOON)
    assert filled(ledger, "vm-1")
    build = submitted(ledger, "b-1", labels={"team": "a"}, ttl=HOUR)
    vm = ledger.instances.get("vm-1")
    changes: Any = {
        "generation": ledger.generation, "owner": "e-1", "until": 9e9, "started": NOON,
        "now": NOON + 900,
    }  # fmt: skip
    with pytest.raises(OverBudget, match=r"day team=a: of \$0.50 .* may cost \$1.25"):
        ledger.pools.claim(build, vm, **changes)
    assert ledger.instances.get("vm-1").build is None
    ledger.budgets.declare([DAILY, TEAM], NOON)
    assert ledger.pools.claim(build, vm, **changes) is not None
    assert held(ledger) == {"day": 1.25, "day team=a": 1.25}


def test_a_new_budget_counts_what_was_spent_today(ledger: Ledger) -> None:
    assert let_in(ledger, wished(ledger, "1", labels={"team": "a"})) == 1
    assert let_in(ledger, wished(ledger, "2")) == 1
    over(ledger, "1", NOON + HOUR / 2)
    ledger.budgets.declare([DAILY, TEAM], NOON + HOUR)
    assert held(ledger) == {"day": 1.5, "day team=a": 0.5}
    ledger.budgets.declare([replace(TEAM, usd=9.0)], NOON + HOUR)
    assert held(ledger) == {"day team=a": 0.5}, "a change keeps what was counted"


def test_what_an_actor_may_spend_is_its_own(ledger: Ledger) -> None:
    ledger.budgets.limit("token:1", 1.0, NOON)
    mine = wished(ledger, "1", actor="token:1")
    assert let_in(ledger, mine) == 1
    assert let_in(ledger, wished(ledger, "2", actor="token:1")) == 0
    assert let_in(ledger, wished(ledger, "3", actor="token:2")) == 1
    ledger.budgets.declare([], NOON)
    assert let_in(ledger, wished(ledger, "4", actor="token:1")) == 0


def test_a_new_limit_counts_what_its_actor_has(ledger: Ledger) -> None:
    """A rule of OIDC may get a limit while builds of its tokens run."""
    for name, actor in (("1", "oidc:a"), ("2", "oidc:b")):
        assert let_in(ledger, wished(ledger, name, actor=actor)) == 1
    ledger.budgets.limit("oidc:a", 1.5, NOON)
    assert let_in(ledger, wished(ledger, "3", actor="oidc:a")) == 0
    assert let_in(ledger, wished(ledger, "4", actor="oidc:b")) == 1
    ledger.budgets.limit("oidc:a", None, NOON)
    assert let_in(ledger, wished(ledger, "5", actor="oidc:a")) == 1
    ledger.budgets.limit("oidc:a", 2.5, NOON)
    assert let_in(ledger, wished(ledger, "6", actor="oidc:a")) == 0, "what it had then counts"


@pytest.fixture
def nodes(url: str, data_dir: Path) -> Iterator[list[Ledger]]:
    with ExitStack() as stack:
        opened = [Ledger.open(url, data_dir=data_dir) for _ in range(8)]
        for node in opened:
            stack.callback(node.close)
        yield opened


def test_eight_at_once_overdraw_nothing(nodes: list[Ledger]) -> None:
    """Each launches for two teams, in another order, against three budgets."""
    ledger = nodes[0]
    other = replace(TEAM, match={"team": "b"}, usd=3.0)
    ledger.budgets.declare([replace(DAILY, usd=4.0), TEAM, other], NOON)
    teams = "ab", "ba"
    wishes = [
        [wished(ledger, f"{n}{m}{t}", labels={"team": t}) for m in range(2) for t in teams[n % 2]]
        for n in range(8)
    ]
    ready, won = threading.Barrier(8), []

    def race(node: Ledger, launches: list[LaunchRequest]) -> None:
        ready.wait()
        for request in launches:
            won.extend(node.instances.start([request], until=9e9))

    threads = [threading.Thread(target=race, args=pair) for pair in zip(nodes, wishes, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 4, "not one less than there is money for"
    found = held(ledger)
    assert found["day"] == 4.0
    assert found["day team=a"] <= 2.0
    assert found["day team=b"] <= 3.0


def test_a_budget_that_is_being_declared_counts(
    nodes: list[Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, other, *_ = nodes
    assert filled(ledger, "vm-1")
    build = submitted(ledger, "b-1", labels={"team": "a"}, ttl=HOUR)
    put, written = budgets._put, threading.Event()

    def slowly(*args: Any) -> None:
        put(*args)
        written.set()
        threading.Event().wait(0.5)

    monkeypatch.setattr(budgets, "_put", slowly)
    declares = threading.Thread(target=other.budgets.declare, args=([replace(TEAM, usd=0.5)], NOON))
    declares.start()
    written.wait()
    with pytest.raises(OverBudget):
        ledger.pools.claim(
            build, ledger.instances.get("vm-1"), generation=ledger.generation, owner="e-1",
            until=9e9, started=NOON, now=NOON,
        )  # fmt: skip
    declares.join()
