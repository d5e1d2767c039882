"""Planted bugs in pools, from the fill to the claim."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

POOLS: Final = "tests/faults/test_pools.py"
RULES: Final = "tests/unit/core/test_pools.py"

BUGS: Final = (
    Bug(
        "take builds that come six at a time for six that come by themselves",
        "core/pool_sizing.py",
        "whole = math.floor(size / batch)",
        "batch = 1.0\n    whole = math.floor(size / batch)",
        "tests/unit/core/test_pool_sizing.py::test_batches_want_a_vm_for_most_of_their_builds",
    ),
    Bug(
        "claim a VM that another build has",
        "ledger/pool_vms.py",
        '            _i.epoch == arg("seen"),\n            _i.build.is_(None),\n',
        "",
        "tests/integration/test_pool_claims.py",
    ),
    Bug(
        "claim what a ledger that was set back shows",
        "engine/pools.py",
        "pool.name: replace(pool, shape=rules.shape_of(pool.spec, generation))",
        "pool.name: replace(pool, shape=rules.shape_of(pool.spec))",
        f"{POOLS}::test_a_ledger_that_was_set_back_claims_no_vm_twice",
    ),
    Bug(
        "a claim that nobody remembers",
        "ledger/pool_vms.py",
        "        self._claimed(row.id, claimed[1].epoch)\n",
        "",
        f"{POOLS}::test_a_ledger_that_was_set_back_claims_no_vm_twice",
    ),
    Bug(
        "a claim lives until the pool's deadline",
        "model/builds.py",
        "return self.deadline if self.due is None else min(self.due, self.deadline)",
        "return self.deadline",
        f"{POOLS}::test_a_claimed_vm_dies_when_its_builds_time_is_over",
    ),
    Bug(
        "claim a VM that ends before the build",
        "core/pools.py",
        "        and now + build.ttl <= row.deadline\n",
        "",
        RULES,
    ),
    Bug(
        "a build fits where it does not equal",
        "core/pools.py",
        "and (shape.container, shape.runtime) == (spec.container, spec.runtime)",
        "and shape.runtime == spec.runtime",
        f"{POOLS}::test_a_build_equals_the_shape_or_gets_its_own_vm",
    ),
    Bug(
        "a pool of one machine type is filled with any",
        "engine/pool_offers.py",
        "found = tuple(offer for offer in answer.offers if rules.of_type(spec, offer))",
        "found = answer.offers",
        "tests/unit/engine/test_pool_offers.py",
    ),
    Bug(
        "a pool of one machine type has the hash of one of any",
        "core/pools.py",
        "typed = [] if spec.machine_type is None else [spec.machine_type]",
        "typed: list[str] = []",
        f"{RULES}::test_another_machine_type_has_another_hash",
    ),
    Bug(
        "a pool fills while builds wait for a place",
        "core/pools.py",
        "blocked = over or given.paused or given.waiting > 0",
        "blocked = over or given.paused",
        RULES,
    ),
    Bug(
        "a VM that waits is stuck",
        "core/row_rules.py",
        "elif row.state in _LIMITED and not _waits(row):",
        "elif row.state in _LIMITED:",
        f"{RULES}::test_a_vm_that_waits_is_never_stuck",
    ),
    Bug(
        "fill without the lease",
        "ledger/instances.py",
        "if launch.instance.role is Role.IMAGE or fills(connection, launch.instance):",
        "if launch.instance:",
        "tests/integration/test_pool_claims.py",
    ),
    Bug(
        "a pool that nobody names waits for ever",
        "core/lifecycle.py",
        "if pool is None or pool.draining or forgotten:",
        "if pool is None or pool.draining:",
        f"{POOLS}::test_a_pool_that_no_serve_names_is_drained",
    ),
)
