"""Bugs to plant in the store and in what goes there and back (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

OBJECTS, UPLOADER = "ledger/objects.py", "store/uploader.py"
GC, SOURCES = "tests/integration/test_store_gc.py", "tests/integration/test_store_sources.py"
LOGS, ARTIFACTS = (
    "tests/integration/test_store_logs.py",
    "tests/integration/test_store_artifacts.py",
)

BUGS: Final = (
    Bug(
        "collect what a build waits for",
        OBJECTS,
        '        and_(_o.unreferenced_since < arg("before"), ~_REFERENCED),\n',
        '        _o.unreferenced_since < arg("before"),\n',
        f"{SOURCES}::test_what_a_build_waits_for_is_not_collected",
    ),
    Bug(
        "submit a source that is being deleted",
        OBJECTS,
        "    _o.state == _STORED,\n    _o.tenant",
        "    _o.tenant",
        f"{SOURCES}::test_a_submit_that_meets_a_deletion_stores_anew",
    ),
    Bug(
        "take another tenant's source",
        OBJECTS,
        '    _o.tenant == arg("tenant"),\n    _o.digest',
        "    _o.digest",
        f"{SOURCES}::test_a_digest_that_another_tenant_stored_is_unknown",
    ),
    Bug(
        "write the bytes before their row",
        "store/put.py",
        "    ledger.objects.begin(new)\n    store.put(new.name, file, digest=digest)\n",
        "    store.put(new.name, file, digest=digest)\n    ledger.objects.begin(new)\n",
        f"{SOURCES}::test_a_crash_while_it_is_stored_leaves_a_row",
    ),
    Bug(
        "point at an object that gc is deleting",
        OBJECTS,
        "                raise _TooLate\n",
        "                return False\n",
        f"{LOGS}::test_an_upload_that_gc_overtook_keeps_the_chunks",
    ),
    Bug(
        "take what is left of a stored log's chunks for its size",
        "store/build_log.py",
        "            sizes = self._ledger.logs.sizes(self._build)\n"
        "            if not self._is_stored():  # still: those are all\n",
        "            sizes = self._ledger.logs.sizes(self._build)\n"
        "            if sizes or not self._is_stored():\n",
        f"{LOGS}::test_a_log_that_is_stored_meanwhile_keeps_its_size",
    ),
    Bug(
        "drop a log's chunks before it is stored",
        "ledger/removals.py",
        "    if fetch(connection, build).log_object is None:\n        return True\n",
        "",
        f"{LOGS}::test_an_upload_that_gc_overtook_keeps_the_chunks",
    ),
    Bug(
        "forget the row before the object is deleted",
        "store/object_gc.py",
        "            gone = self._delete_all(store, names, total)\n"
        "            objects.forget(*gone)\n",
        "            objects.forget(*names)\n"
        "            gone = self._delete_all(store, names, total)\n",
        f"{GC}::test_a_crash_while_it_deletes_is_gone_on_with",
    ),
    Bug(
        "forget that many objects had no row",
        "store/object_gc.py",
        "(latched or len(found) > ORPHAN_CAP)",
        "len(found) > ORPHAN_CAP",
        f"{GC}::test_many_that_no_row_has_are_held_back",
    ),
    Bug(
        "upload what a former owner began to bring",
        UPLOADER,
        "(epoch == str(build.collected)) if mark else",
        "True if mark else",
        f"{ARTIFACTS}::test_what_a_former_owner_began_to_bring_is_nobodys",
    ),
    Bug(
        "look for the stored log before the live one",
        "store/build_log.py",
        "            if chunks or not self._is_stored():\n                return chunks\n",
        "            return chunks\n",
        f"{LOGS}::test_a_reader_goes_on_where_the_ledger_ended",
    ),
    Bug(
        "nothing points at a log",
        OBJECTS,
        "or_(_b.log_object == _o.name, _b.artifacts_object == _o.name)",
        "_b.artifacts_object == _o.name",
        "tests/faults/test_points.py -k everything_sleeps_for_an_hour[stored]",
    ),
    Bug(
        "delete an object and keep its row",
        "store/object_gc.py",
        "            objects.forget(*gone)\n",
        "",
        "tests/faults/test_points.py -k everything_sleeps_for_an_hour[stored]",
    ),
    Bug(
        "flush no directory",
        "store/files.py",
        "        for directory in (path.parent, *made):\n",
        "        for directory in ():\n",
        "tests/integration/test_store_endpoints.py::test_a_file_and_its_new_directories_are_flushed",
    ),
)
