"""Bugs to plant in what keeps a service: rotation of its key, backup, restore (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

SEALED = "ledger/sealed_values.py"
ROTATION = "tests/integration/test_key_rotation.py"

UPKEEP_BUGS: Final = (
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
        "        for column in _COLUMNS:\n            one",
        "        for column in reversed(_COLUMNS):\n            one",
        f"{ROTATION}::test_a_crash_in_the_middle_is_gone_on_with",
    ),
    Bug(
        "read the key's file once",
        "ledger/encryption.py",
        "version != self._version",
        "version is None",
        f"{ROTATION}::test_a_key_in_a_file_is_followed_by_all",
    ),
)
