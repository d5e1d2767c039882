"""Bugs to plant where a container's tag becomes a digest (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

IDS = "tests/unit/providers/kubernetes/test_image_ids.py"
RECONCILER = "tests/unit/engine/test_reconciler.py"
ROWS = "tests/integration/test_ledger_instances.py"

BUGS: Final = (
    Bug(
        "pins: a retry goes by the tag again",
        "engine/orders.py",
        "return replace(shape, container=pinned) if shape and pinned else shape",
        "return shape",
        "tests/unit/engine/test_orders.py::test_a_later_attempt_is_ordered_by_the_firsts_digest",
    ),
    Bug(
        "pins: a retry takes other bytes from a pool",
        "engine/pools.py",
        "        return pinned in (None, row.container)\n",
        "        return row.container is None or pinned in (None, row.container)\n",
        f"{RECONCILER}::test_a_retry_takes_no_other_bytes_from_a_pool",
    ),
    Bug(
        "pins: a try that was not counted is forgotten",
        "engine/orders.py",
        "if shape else None\n        return replace",
        "if shape and build.attempt else None\n        return replace",
        "tests/unit/engine/test_orders.py::test_a_later_attempt_is_ordered_by_the_firsts_digest",
    ),
    Bug(
        "what ran waits for room anew",
        "engine/reconciler.py",
        "return is_coming(build) and ",
        "return ",
        f"{RECONCILER}::test_only_what_never_ran_waits_for_room_anew",
    ),
    Bug(
        "pins: the session begins before its digest is noted",
        "engine/reconciler.py",
        "            [(row.id, row.epoch, containers[row.id]) for row, _ in fresh "
        "if row.id in containers],\n",
        "            [],\n",
        f"{RECONCILER}::test_a_container_is_pinned_before_anything_runs_in_it",
    ),
    Bug(
        "pins: the last digest counts",
        "ledger/instances.py",
        '_i.epoch == arg("epoch"), _i.container.is_(None))',
        '_i.epoch == arg("epoch"))',
        f"{ROWS}::test_the_first_container_of_a_build_stays_its_own",
    ),
    Bug(
        "pins: the first row by its name counts",
        "ledger/instance_reads.py",
        "        .order_by(_i.attempt, _i.id)\n",
        "        .order_by(_i.id)\n",
        f"{ROWS}::test_the_first_container_of_a_build_stays_its_own",
    ),
    Bug(
        "pins: another repository's digest is ours",
        "providers/kubernetes/image_ids.py",
        " or _place(found[1]) != _place(image)",
        "",
        f"{IDS}::test_what_its_own_registry_may_lack_pins_nothing",
    ),
    Bug(
        "pins: a port is a tag",
        "providers/kubernetes/image_ids.py",
        "    return f\"{head}{slash}{last.partition(':')[0]}\"\n",
        '    return image.partition(":")[0]\n',
        f"{IDS}::test_a_tag_becomes_the_digest_that_the_node_pulled",
    ),
)
