"""Bugs to plant in what keeps a service: rotation of its key, backup, restore (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

SEALED = "ledger/sealed_values.py"
ROTATION = "tests/integration/test_key_rotation.py"
BACKUP = "tests/integration/test_backup.py"

BUGS: Final = (
    Bug(
        "put back a sealed value that was erased",
        SEALED,
        'key == arg("id"), value == arg("old")',
        'key == arg("id")',
        f"{ROTATION}::test_what_is_erased_meanwhile_stays_erased",
    ),
    Bug(
        "seal the canary anew before all else",
        SEALED,
        "        for column in _COLUMNS:\n            counts",
        "        for column in reversed(_COLUMNS):\n            counts",
        f"{ROTATION}::test_a_crash_in_the_middle_is_gone_on_with",
    ),
    Bug(
        "read the key's file once",
        "ledger/encryption.py",
        "version != self._version",
        "version is None",
        f"{ROTATION}::test_a_key_in_a_file_is_followed_by_all",
    ),
    Bug(
        "copy the objects before the ledger",
        "services/backup.py",
        "        copy = ledger.copy_to(partial / LEDGER)\n",
        "        copy = ledger.copy_to(partial / LEDGER)\n"
        "        for early in copy.objects:\n"
        "            list(store.read(early.name))\n"
        "        (partial / LEDGER).unlink()\n"
        "        ledger.copy_to(partial / LEDGER)\n",
        f"{BACKUP}::test_a_row_never_lacks_its_object",
    ),
    Bug(
        "restore the generation too",
        "ledger/backups.py",
        "UPDATE ledger SET generation = '{generation}', paused_at",
        "UPDATE ledger SET paused_at",
        f"{BACKUP}::test_vms_born_since_are_not_of_its_generation",
    ),
    Bug(
        "restore before all is verified",
        "services/backup_manifest.py",
        "    if found != digest:\n",
        "    if not found:\n",
        f"{BACKUP}::test_a_damaged_backup_changes_nothing",
    ),
    Bug(
        "restore over a ledger that is served",
        "services/restore.py",
        "    if living:\n",
        "    if living and not replace:\n",
        f"{BACKUP}::test_a_ledger_in_use_is_not_restored_over",
    ),
    Bug(
        "restore in two transactions",
        "ledger/postgres_copy.py",
        ' "--single-transaction",',
        "",
        f"{BACKUP}::test_a_restore_that_fails_changes_nothing",
    ),
)
