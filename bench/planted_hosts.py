"""Planted bugs in what several hosts share: pools of local VMs, VMs of hosts that are gone, clones;
and in pools whose VMs do not come up."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

HOSTS: Final = "tests/faults/test_two_hosts.py"
FAILING: Final = "tests/faults/test_pools_failing.py"
DRAWN: Final = "tests/faults/test_chaos_hosts.py"
GONE: Final = "tests/unit/engine/test_gone_hosts.py"
SIZES: Final = "tests/unit/engine/test_pool_sizes.py"
WARM_UPS: Final = "tests/unit/engine/test_pool_warm_ups.py"

BUGS: Final = (
    Bug(
        "a sweep of one host forgets what another's saw",
        "ledger/sightings.py",
        '_s.provider == arg("provider"), or_(_s.place == arg("place"), _s.place == "")',
        '_s.provider == arg("provider"), arg("place") == arg("place")',
        f"{HOSTS}::test_a_vm_lost_by_its_host_is_missed_twice",
    ),
    Bug(
        "take over what another host's VM runs, in a drawn world",
        "engine/reconciler.py",
        "if build.instance in snapshot.unread or build.instance in snapshot.everybody:",
        "if build.instance in snapshot.unread:",
        f"{DRAWN}::test_hosts_come_and_go_in_a_hostile_world",
    ),
    Bug(
        "give up at once the VMs of a host that is not heard",
        "engine/gone_hosts.py",
        "if now >= watch.over and self._membership.member_gone(row.owner):",
        "if self._membership.member_gone(row.owner):",
        f"{DRAWN}::test_hosts_come_and_go_in_a_hostile_world",
    ),
    Bug(
        "act on VMs in scopes of other hosts",
        "engine/context.py",
        "if row.scope in scopes[name]:",
        "if True:",
        "tests/unit/engine/test_context.py",
    ),
    Bug(
        "a pool is filled by what every host has",
        "engine/pools.py",
        "for row in snapshot.rows.values() if row.pool == pool.name]",
        "for row in snapshot.everybody.values() if row.pool == pool.name]",
        f"{HOSTS}::test_each_host_has_a_pool_of_its_own",
    ),
    Bug(
        "one host's lease is all hosts'",
        "ledger/pool_vms.py",
        'return f"pool:{pool}@{place}" if place else f"pool:{pool}"',
        'return f"pool:{pool}"',
        f"{HOSTS}::test_each_host_has_a_pool_of_its_own",
    ),
    Bug(
        "take over a pool's VMs that another host has",
        "ledger/pool_vms.py",
        '            _i.id == arg("id"),\n            _i.pool == arg("pool"),\n',
        '            _i.pool == arg("pool"),\n',
        "tests/integration/test_pool_claims.py",
    ),
    Bug(
        "one host's demand is all hosts'",
        "ledger/pools.py",
        '.where(_s.pool == arg("pool"), _s.place == arg("place"), _s.at > arg("after"))',
        '.where(_s.pool == arg("pool"), _s.at > arg("after"))',
        f"{SIZES}::test_demand_is_of_the_host_that_it_came_to",
    ),
    Bug(
        "forget what arrived before this engine",
        "engine/pool_sizes.py",
        "        pools.store_arrivals(name, place, json.dumps(arrivals.dump()))\n",
        "",
        f"{SIZES}::test_another_engine_goes_on_with_what_arrived",
    ),
    Bug(
        "a size that is capped says nothing",
        "engine/pool_sizes.py",
        "capped=affordable < wanted",
        "capped=False",
        f"{SIZES}::test_what_idles_costs_no_more_than_a_day_may",
    ),
    Bug(
        "keep the connection of a pool's VM that was taken over",
        "engine/pool_warm_ups.py",
        "if row is None or row.epoch != epoch or row.state is not InstanceState.READY:",
        "if row is None or row.state is not InstanceState.READY:",
        WARM_UPS,
    ),
    Bug(
        "leave a connection open whose VM waits no more",
        "engine/pool_warm_ups.py",
        "                del self._connections[name]\n                connection.close()\n",
        "                del self._connections[name]\n",
        WARM_UPS,
    ),
    Bug(
        "nobody sends a pool's orders of the dead",
        "engine/pools.py",
        "        self._ask_again(snapshot, kept)\n",
        "",
        f"{FAILING}::test_the_next_serve_sends_a_dead_ones_orders",
    ),
    Bug(
        "a dead serve of this host keeps a pool's lease",
        "engine/pools.py",
        "self._taker.take(name, self._membership.is_dead)",
        "self._taker.take(name)",
        f"{FAILING}::test_the_next_serve_sends_a_dead_ones_orders",
    ),
    Bug(
        "send a pool's order that is too old",
        "engine/pools.py",
        "if self._context.now(row) < row.created_at + newborn / 2:",
        "if True:",
        f"{FAILING}::test_orders_too_old_to_send_are_given_up",
    ),
    Bug(
        "a refused order of the dead is no failure",
        "engine/launcher.py",
        "return pending.build is None",
        "return False",
        f"{FAILING}::test_a_refused_order_of_the_dead_is_told",
    ),
    Bug(
        "the pause of a pool does not grow",
        "engine/pool_troubles.py",
        "backoff(FIRST_PAUSE, failures, longest)",
        "backoff(FIRST_PAUSE, 0, longest)",
        "tests/unit/engine/test_pool_troubles.py",
    ),
    Bug(
        "a pool of a bad image makes all of them again",
        "engine/pools.py",
        "count = min(count, max(0, 1 - making))  # one shows whether that is over",
        "pass",
        f"{FAILING}::test_a_pool_of_a_bad_image_slows_down",
    ),
    Bug(
        "a pool of a bad image says that it is made",
        "engine/pools.py",
        "empty = trouble.reason  # what is on its way",
        "pass  # what is on its way",
        f"{FAILING}::test_a_pool_of_one_tells_why_it_is_empty",
    ),
    Bug(
        "what is stuck in a pool is no failure",
        "engine/pools.py",
        "        self._note_stuck(rows)\n",
        "",
        f"{FAILING}::test_a_pool_whose_vms_never_answer_slows_down",
    ),
    Bug(
        "a host is gone by our own clock",
        "engine/gone_hosts.py",
        "now + max(0.0, row.deadline - read) + DOUBT",
        "now + max(0.0, row.deadline - self._context.clock()) + DOUBT",
        GONE,
    ),
    Bug(
        "a birth by a clock that was fast outweighs a later beat",
        "engine/gone_hosts.py",
        "read = row.created_at if beat is None else beat",
        "read = max(row.created_at, beat or 0.0)",
        GONE,
    ),
    Bug(
        "a VM is given up while its owner lives",
        "engine/gone_hosts.py",
        "if now >= watch.over and self._membership.member_gone(row.owner):",
        "if now >= watch.over:",
        GONE,
    ),
    Bug(
        "a VM is given up that somebody tries to delete",
        "engine/gone_hosts.py",
        "(read, row.epoch, row.deletes)",
        "(read, row.epoch, 0)",
        GONE,
    ),
    Bug(
        "a cloud's VM is given up",
        "engine/gone_hosts.py",
        "if row.id in snapshot.rows or not registry.is_host_bound(row.scope.kind):",
        "if row.id in snapshot.rows:",
        GONE,
    ),
    Bug(
        "no wish ends a build whose VM is out of reach",
        "engine/reconciler.py",
        "if build.cancel is not None and row is not None:",
        "if False and row is not None:",
        f"{HOSTS}::test_a_wish_ends_a_build_whose_host_is_gone",
    ),
    Bug(
        "take over what another host's VM runs",
        "engine/reconciler.py",
        "if build.instance in snapshot.unread or build.instance in snapshot.everybody:",
        "if build.instance in snapshot.unread:",
        f"{HOSTS}::test_a_host_that_comes_back_early_goes_on",
    ),
    Bug(
        "a clone goes on",
        "engine/cloned_hosts.py",
        "            if member.seen_at != beat:\n                return refusal(member)\n",
        "",
        "tests/unit/engine/test_cloned_hosts.py",
    ),
    Bug(
        "a host that booted is its own clone",
        "engine/cloned_hosts.py",
        "if member.seen_at != beat:",
        "if True:",
        "tests/unit/engine/test_cloned_hosts.py",
    ),
    Bug(
        "a state directory that was cloned is the same",
        "providers/qemu/sweep.py",
        "(processes.machine_id(state.path), state.host)",
        "(processes.machine_id(state.path), )",
        "tests/unit/providers/qemu/test_qemu.py::test_cloned_machines_have_scopes_of_their_own",
    ),
    Bug(
        "say a wish to park once",
        "engine/parker.py",
        "if former is None or (former.call is None and now >= former.at):",
        "if former is None:",
        "tests/faults/test_pools_parked.py",
    ),
    Bug(
        "an operator gives up what lives",
        "services/destroy.py",
        "return beat() not in (None, before)",
        "return False",
        "tests/integration/test_gone_hosts.py::test_a_word_about_the_living_is_refused",
    ),
)
