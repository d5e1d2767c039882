"""Bugs to plant in parts of the ledger and the store that keep what was said (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

LOGS, BACKUP = "tests/integration/test_ledger_logs.py", "tests/integration/test_backup.py"
STORED = "tests/integration/test_store_log_object.py"

BUGS: Final = (
    Bug(
        "keep events that were told in the ledger for ever",
        "ledger/outbox.py",
        "            _FORGET(connection, before=now - KEEP)\n",
        "",
        "tests/integration/test_webhooks_given_up.py"
        "::test_what_was_told_is_remembered_for_a_week_and_forgotten",
    ),
    Bug(
        "put back a copy that nobody checked",
        "ledger/sqlite_copy.py",
        "            _check(stage)\n",
        "",
        f"{BACKUP}::test_a_copy_that_is_damaged_is_not_put_back",
    ),
    Bug(
        "let any owner write the log",
        "ledger/logs.py",
        '        .where(_b.id == arg("build"), _b.epoch == arg("epoch"))\n',
        '        .where(_b.id == arg("build"), arg("epoch") > 0)\n',
        LOGS,
    ),
    Bug(
        "forget what was seen at all providers",
        "ledger/sightings.py",
        '_CLEAR = Prepared(lambda: delete(SIGHTINGS).where(_s.provider == arg("provider")))',
        '_CLEAR = Prepared(lambda: delete(SIGHTINGS).where(arg("provider") != ""))',
        f"{LOGS}::test_sightings_are_kept_for_each_provider",
    ),
    Bug(
        "take the cost of a build that runs for final",
        "ledger/settling.py",
        'case((_b.state == BuildState.FINISHED.value, arg("final")), else_=false())',
        'case((_b.state != "", arg("final")), else_=false())',
        "tests/integration/test_costs.py",
    ),
    Bug(
        "fork amid a transaction",
        "ledger/fork_safety.py",
        "            return self._changed.wait_for(lambda: not self._inside, patience)\n",
        "            return True\n",
        "tests/integration/test_ledger_shared.py::test_a_fork_waits_for_a_transaction",
    ),
    Bug(
        "show a stored log that is damaged",
        "store/log_object.py",
        "            if len(piece) != entry.size or zlib.crc32(piece) != entry.crc:\n",
        "            if len(piece) != entry.size:\n",
        f"{STORED}::test_a_damaged_log_is_never_shown",
    ),
    Bug(
        "believe an index that is damaged",
        "store/trailer.py",
        "    if hashlib.sha256(packed).digest() != digest:\n",
        "    if not digest:\n",
        f"{STORED}::test_a_damaged_log_is_never_shown",
    ),
    Bug(
        "name another tenant's source",
        "store/source_transfer.py",
        "        self.find(digest, tenant=tenant)\n        return digest\n",
        "        return digest\n",
        "tests/integration/test_store_sources.py::test_another_build_has_only_its_tenants_source",
    ),
)
