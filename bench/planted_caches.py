"""Bugs to plant in caches, credentials of registries and what a build used (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

CACHES, LEDGER = "tests/integration/test_caches.py", "tests/integration/test_ledger_caches.py"
UPLOADS = "tests/integration/test_cache_uploads.py"
ARCHIVE = "tests/unit/guest/test_cache_archive.py"
LOGIN = "tests/integration/test_registry_secret.py"

BUGS: Final = (
    Bug(
        "compare no scope",
        "ledger/caches.py",
        '_c.scope == arg("scope"), ',
        "",
        f"{LEDGER}::test_a_build_finds_its_tenants_and_its_scopes_alone",
    ),
    Bug(
        "compare no tenant",
        "ledger/caches.py",
        '_HERE: Final = and_(_c.tenant == arg("tenant"), ',
        "_HERE: Final = and_(",
        f"{LEDGER}::test_a_build_finds_its_tenants_and_its_scopes_alone",
    ),
    Bug(
        "let main read branches",
        "store/cache_transfer.py",
        "        others = [_text({**mine, **labels}) for labels in self.fallback]\n",
        "        others = [_text(dict.fromkeys(mine, 'branch')) for _ in self.fallback]\n",
        f"{CACHES}::test_a_branch_reads_mains_and_main_never_a_branchs",
    ),
    Bug(
        "keep what a failed build left",
        "store/cache_transfer.py",
        "build.result is Result.SUCCESS",
        "build.result is not None",
        f"{CACHES}::test_what_a_session_brought_is_kept_after_success_alone",
    ),
    Bug(
        "pack after a failed step",
        "guest/caches.py",
        ' and last["exit_code"] == 0',
        "",
        f"{CACHES}::test_a_failed_build_saves_nothing",
    ),
    Bug(
        "keep what an owner of before brought",
        "store/cache_transfer.py",
        "int(epoch) == build.epoch",
        "int(epoch) >= 0",
        f"{CACHES}::test_an_owner_of_before_saves_nothing",
    ),
    Bug(
        "check no hash",
        "store/fetch.py",
        "        for _ in _timely(verified(store.read(name), digest, name), until):\n"
        "            pass\n"
        "        return here\n",
        "        return here\n",
        f"{CACHES}::test_a_damaged_cache_is_not_restored_and_forgotten",
    ),
    Bug(
        "let a VM replace the cache that it found",
        "session/caches.py",
        "if found is not None and found.exact:",
        "if False:",
        f"{CACHES}::test_a_vm_that_found_its_key_cannot_replace_it",
    ),
    Bug(
        "take all that a VM sends",
        "session/caches.py",
        "        if self.size > self._most:\n",
        "        if False:\n",
        f"{CACHES}::test_a_vm_that_lies_about_its_cache_costs_the_cache",
    ),
    Bug(
        "hold no cap of a tenant",
        "ledger/caches.py",
        "                if remaining < 0 or",
        "                if False or",
        f"{LEDGER}::test_use_decides_what_makes_room",
    ),
    Bug(
        "follow a link of a cache",
        "guest/cache_archive.py",
        "            if not stat.S_ISDIR(_mode(path)):\n                raise NotCached(",
        "            if False:\n                raise NotCached(",
        f"{ARCHIVE}::test_nothing_outside_is_written_or_linked",
    ),
    Bug(
        "end a build for its cache",
        "session/caches.py",
        "                if isinstance(error, client.ConnectionLost):\n"
        "                    return\n",
        "                if isinstance(error, client.ConnectionLost):\n                    raise\n",
        f"{CACHES}::test_a_connection_lost_while_saving_costs_the_cache",
    ),
    Bug(
        "run a tenant's caches again for another",
        "services/run_again.py",
        "    if row.spec.caches:",
        "    if False:",
        "tests/integration/test_http_caches.py"
        "::test_a_build_with_caches_runs_again_for_its_tenant_alone",
    ),
    Bug(
        "tell a secret in a cache's event",
        "session/session.py",
        'self._relay.masked(str(event.data["error"]))',
        'str(event.data["error"])',
        f"{CACHES}::test_no_secret_is_in_what_is_told_of_a_cache",
    ),
    Bug(
        "keep all copies of a bucket",
        "store/cache_transfer.py",
        "            if remaining >= 0 or used",
        "            if path or used",
        f"{UPLOADS}::test_copies_of_a_bucket_take_so_much_of_this_disk",
    ),
    Bug(
        "tell a secret in an artifact's name",
        "session/session.py",
        "ARTIFACT_OMITTED, message=self._relay.masked(why))",
        "ARTIFACT_OMITTED, message=why)",
        "tests/integration/test_session_artifacts.py"
        "::test_no_secret_is_in_what_is_told_of_artifacts",
    ),
    Bug(
        "let what a tenant let go grow",
        "store/cache_transfer.py",
        "            if let_go + file.stat().st_size > most:\n",
        "            if False:\n",
        f"{UPLOADS}::test_what_a_tenant_let_go_is_bounded_too",
    ),
    Bug(
        "let one cache that is refused keep all others",
        "store/uploader.py",
        "                failed.append(error)\n        if failed:\n            raise failed[0]\n",
        "                raise\n",
        f"{UPLOADS}::test_what_the_store_refuses_keeps_no_other_cache",
    ),
    Bug(
        "give the container its registry's credential",
        "session/job.py",
        "if k != spec.registry_secret}",
        "}",
        f"{LOGIN}::test_neither_container_nor_vm_keeps_anything_of_it",
    ),
    Bug(
        "keep a registry's credential in the VM",
        "guest/build.py",
        '            self._place.erase("registry")\n            if self._place.claim(',
        "            if self._place.claim(",
        f"{LOGIN}::test_neither_container_nor_vm_keeps_anything_of_it",
    ),
    Bug(
        "show what a registry says of a credential",
        "session/session.py",
        "message=self._relay.masked(ended.message)",
        "message=ended.message",
        f"{LOGIN}::test_a_wrong_login_fails_and_its_echo_is_masked",
    ),
    Bug(
        "take an unknown figure for 0",
        "session/protocol.py",
        "            name: None if event.get(name) is None else",
        "            name: 0 if event.get(name) is None else",
        "tests/unit/session/test_protocol.py::test_what_it_used_is_read_and_the_rest_unknown",
    ),
)
