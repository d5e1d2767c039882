"""Bugs to plant in rates, costs and budgets (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

COSTS, BUDGETS = "tests/integration/test_costs.py", "tests/integration/test_budgets.py"
PRICES, RATES = "tests/integration/test_prices.py", "tests/unit/core/test_pricing.py"
CRASHES, LAUNCHES = "tests/faults/test_budgets.py", "tests/unit/engine/test_launcher.py"

BUGS: Final = (
    Bug(
        "launch beside a budget that is being declared",
        "ledger/budgets.py",
        "run(connection, select(LEDGER.c.id).with_for_update(read=True, key_share=True))",
        "pass",
        f"{BUDGETS}::test_a_budget_that_is_being_declared_counts",
    ),
    Bug(
        "take an unknown price for nothing",
        "core/pricing.py",
        "        if price is None:\n            return None\n",
        "        if price is None:\n            continue\n",
        f"{RATES}::test_one_unknown_part_makes_the_whole_unknown",
    ),
    Bug(
        "bill a parked VM as one that runs",
        "core/pricing.py",
        "yield Billed(parked, woken, rate.parked_usd_hour)",
        "yield Billed(parked, woken, rate.usd_hour)",
        f"{RATES}::test_only_the_disk_bills_while_parked",
    ),
    Bug(
        "leave a pool's waiting out of its build's cost",
        "core/pricing.py",
        "    return stretches(row.created_at, end, row.parked_at, row.claimed_at, row.rate)\n",
        "    return stretches(row.begun, end, row.parked_at, row.claimed_at, row.rate)\n",
        f"{COSTS}::test_a_build_pays_for_the_time_its_vm_waited",
    ),
    Bug(
        "call a cost final while a VM is there",
        "core/pricing.py",
        "final=over and all(row.state is InstanceState.GONE for row in rows)",
        "final=over",
        f"{COSTS}::test_a_cost_grows_until_the_last_vm_is_gone",
    ),
    Bug(
        "leave a cost as it was at the build's end",
        "ledger/instance_writes.py",
        "            settle(connection, row[0], now)\n",
        "",
        f"{COSTS}::test_a_cost_grows_until_the_last_vm_is_gone",
    ),
    Bug(
        "hold nothing for what runs",
        "core/budgets.py",
        "    seconds = min(row.end, span.end) - max(row.created_at, span.start)\n",
        "    seconds = 0.0\n",
        f"{BUDGETS}::test_what_runs_holds_money_until_its_deadline",
    ),
    Bug(
        "look at the first day alone",
        "core/budgets.py",
        "        if own and own + others > budget.usd + _ROUNDING:",
        "        if span.start > row.created_at:\n            break\n"
        "        if own and own + others > budget.usd + _ROUNDING:",
        f"{BUDGETS}::test_a_night_needs_money_of_both_days",
    ),
    Bug(
        "let in by a price that nobody knows",
        "core/budgets.py",
        "        if budget.action is BudgetAction.WARN:\n            return None\n",
        "        return None\n",
        f"{BUDGETS}::test_an_unknown_price_is_refused_where_a_budget_refuses",
    ),
    Bug(
        "check budgets without their lock",
        "ledger/budgets.py",
        "        query = query.with_for_update()\n",
        "        pass\n",
        f"{BUDGETS}::test_eight_at_once_overdraw_nothing[postgresql]",
    ),
    Bug(
        "forget the charge of a claim",
        "ledger/pool_vms.py",
        "            admission.charge(its, *paid)\n",
        "",
        f"{BUDGETS}::test_a_claim_needs_money_of_its_builds_budgets",
    ),
    Bug(
        "let another offer in unasked",
        "ledger/instances.py",
        "            admission.release(refused)\n"
        "            paid = admission.check_launch(launch)\n",
        "            paid: tuple[list[str], list[Any]] = ([], [])\n",
        f"{BUDGETS}::test_a_retry_and_another_offer_need_money_too",
    ),
    Bug(
        "fold what is gone twice",
        "ledger/budgets.py",
        "                    _UNCHARGE(connection, budget=name, instance=row.id)\n",
        "                    pass\n",
        f"{BUDGETS}::test_a_vm_that_is_gone_holds_what_it_cost",
    ),
    Bug(
        "hold the whole life of what is gone",
        "core/budgets.py",
        "    if row.state is InstanceState.GONE:\n        return pricing.cost(row, ",
        "    if False:\n        return pricing.cost(row, ",
        f"{CRASHES}::test_a_death_anywhere_overdraws_nothing",
    ),
    Bug(
        "leave a build without money in the queue",
        "engine/launcher.py",
        "            self._over_budget.ended.append((build, instance, end))\n",
        "            pass\n",
        f"{LAUNCHES}::test_a_build_over_budget_ends_and_asks_nobody",
    ),
    Bug(
        "take the cheapest zone's price",
        "providers/ec2/price_list.py",
        '        found[item] = max(found.get(item, 0.0), float(price["SpotPrice"]))\n',
        '        found[item] = min(found.get(item, 9.0), float(price["SpotPrice"]))\n',
        f"{PRICES}::test_a_spot_vm_has_the_price_of_its_dearest_zone",
    ),
    Bug(
        "ask for prices each time",
        "services/prices.py",
        ">= FRESH",
        ">= 0",
        f"{PRICES}::test_prices_are_asked_for_when_they_are_old",
    ),
)
