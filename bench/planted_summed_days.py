"""Bugs to plant in sums of days, and in what is known of removed rows (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

DAYS, SET_BACK = (
    "tests/integration/test_summed_days.py",
    "tests/integration/test_ledger_set_back.py",
)
SETTLED, SPENDING = "ledger/settled_costs.py", "ledger/spending.py"

BUGS: Final = (
    Bug(
        "sum what is gone while its build goes on",
        SETTLED,
        " if row[2] == BuildState.FINISHED.value}",
        "}",
        f"{DAYS}::test_what_may_still_change_is_not_summed",
    ),
    Bug(
        "sum one VM of a build before the others",
        SETTLED,
        "row[-1] is None or ",
        "",
        f"{DAYS}::test_vms_of_a_build_are_summed_together",
    ),
    Bug(
        "sum a day that is not over",
        SETTLED,
        " or row[-1] >= before for row",
        " for row",
        f"{DAYS}::test_vms_of_a_build_are_summed_together",
    ),
    Bug(
        "lose labels while there are rows",
        SETTLED,
        "exact = exact and room.takes(",
        "exact = exact and room.takes or (",
        f"{DAYS}::test_too_many_sets_of_labels_stay_rows",
    ),
    Bug(
        "read no rows of the day in which a report begins",
        SPENDING,
        "if first < whole\n",
        "if first > whole\n",
        f"{DAYS}::test_rows_in_sums_are_read_no_more",
    ),
    Bug(
        "read rows and sums at two moments",
        "ledger/database.py",
        'connections.SNAPSHOT if snapshot else ""',
        '""',
        f"{DAYS}::test_a_report_sees_one_moment",
    ),
    Bug(
        "believe the name that a fast clock made",
        "ledger/removed_vms.py",
        "min(max(vms), ids.instances_since(now - MARGIN))",
        "max(vms)",
        f"{SET_BACK}::test_a_removed_row_vouches_for_no_younger_one",
    ),
    Bug(
        "take a claim of a row that is there for one of a removed row",
        "ledger/ledger.py",
        "    return not isinstance(row[0], int) or row[0] >= memory.epoch\n",
        "    return row[0] >= memory.epoch or removed_vms.was_removed(\n"
        "        connection, memory.instance\n    )\n",
        f"{SET_BACK}::test_a_claimed_row_that_is_there_needs_its_epoch",
    ),
    Bug(
        "forget which rows retention removed",
        "ledger/old_rows.py",
        "    note_removed(connection, [row.id for row in found])\n",
        "",
        f"{SET_BACK}::test_a_row_that_was_removed_is_no_set_back",
    ),
)
