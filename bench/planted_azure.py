"""Bugs to plant in the azure driver (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

AZURE = "providers/azure"
AT_AZURE, FAULTS = "tests/integration/test_azure.py", "tests/integration/test_azure_faults.py"
UNIT = "tests/unit/providers/azure"

AZURE_BUGS: Final = (
    Bug(
        "Azure: a VM that was never seen is dead",
        f"{AZURE}/describe.py",
        "        if known is None:\n            return None\n        goes",
        "        known = known or _Known(-SETTLED)\n        goes",
        f"{AT_AZURE}::test_what_was_never_seen_may_be_a_newborn",
    ),
    Bug(
        "Azure: every spot VM that is gone was taken back",
        f"{AZURE}/describe.py",
        "known.spot and not known.ended",
        "known.spot",
        f"{AT_AZURE}::test_a_spot_vm_that_azure_took_back_is_told",
    ),
    Bug(
        "Azure: what a failed create left is not deleted",
        f"{AZURE}/create.py",
        "                self._clean_up(order)\n",
        "",
        f"{FAULTS}::test_a_create_that_fails_is_told_in_our_words",
    ),
    Bug(
        "Azure: a name that exists is ours",
        f"{AZURE}/create.py",
        "if key.startswith(TAG))",
        "if not key)",
        f"{FAULTS}::test_anothers_vm_of_that_name_is_none_of_ours",
    ),
    Bug(
        "Azure: arm VMs that Azure cannot deallocate",
        f"{AZURE}/deadline_schedules.py",
        'if part(vm, "properties", "storageProfile", "osDisk", "diffDiskSettings"):',
        "if not vm:",
        f"{AT_AZURE}::test_an_ephemeral_disk_is_where_there_is_room",
    ),
    Bug(
        "Azure: a missing group is a missing VM",
        f"{AZURE}/error_codes.py",
        'MISSING: Final = frozenset({"NotFound", "ResourceNotFound"})',
        'MISSING: Final = frozenset({"NotFound", "ResourceNotFound", "ResourceGroupNotFound"})',
        f"{UNIT}/test_error_codes.py::test_a_missing_group_is_no_missing_vm",
    ),
    Bug(
        "Azure: fetch a log from wherever",
        f"{AZURE}/console.py",
        "and host.endswith(_BLOBS)",
        "",
        f"{UNIT}/test_options.py::test_a_log_is_fetched_from_azure_alone",
    ),
    Bug(
        "Azure: tokens over plain HTTP to anybody",
        f"{AZURE}/options.py",
        "if self.plain and not _is_loopback",
        "if False and not _is_loopback",
        f"{UNIT}/test_options.py::test_a_wrong_value_is_told_with_its_fix",
    ),
    Bug(
        "Azure: a part that a VM holds is ours by its name",
        f"{AZURE}/resources.py",
        "if found is None or attached is not None or any(",
        "if found is None or any(",
        f"{UNIT}/test_resources.py::test_nothing_else_is_ours_by_name",
    ),
    Bug(
        "Azure: half a denial is enough",
        f"{AZURE}/isolation.py",
        "return wide and covered and bool(goes & _EVERYONE)",
        "return covered",
        f"{UNIT}/test_isolation.py::test_half_a_denial_is_none",
    ),
)
