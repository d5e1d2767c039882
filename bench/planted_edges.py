"""Bugs to plant in the drivers and the rest of the shell (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

EC2, GCE, QEMU = "providers/ec2", "providers/gce", "providers/qemu"
EC2_OUTAGES = "tests/integration/test_ec2_outages.py"
EC2_FAULTS = "tests/integration/test_ec2_faults.py"
GCE_OUTAGES = "tests/integration/test_gce_outages.py"
GCE_STOPS, GCE_SDK = "tests/integration/test_gce_stops.py", "tests/integration/test_gce_sdk.py"
LOCAL, SECCOMP = (
    "tests/unit/providers/qemu/test_qemu.py",
    "tests/unit/providers/qemu/test_seccomp.py",
)
FILES = "tests/unit/providers/qemu/test_image_integrity.py"
DROPPED = "tests/unit/providers/test_retired_providers.py"
SERVING = "tests/integration/test_serving.py"
SET_BACK = "tests/integration/test_ledger_set_back.py"
COMMONS, PEERS = (
    "tests/unit/providers/common/test_common.py",
    "tests/unit/engine/test_membership.py",
)
TRUST = "tests/unit/config/test_trust.py"
RENAMED = "tests/faults/test_renamed.py"
HOSTILE = "tests/integration/test_session_hostile.py"

_EC2_BUGS: Final = (
    Bug(
        "EC2: look by name whatever the installation",
        f"{EC2}/describe.py",
        "list(by_name), own_tag):",
        "list(by_name)):",
        f"{EC2_OUTAGES}::test_our_id_does_not_find_anothers_spot_vm",
    ),
    Bug(
        "EC2: lift one of two protections",
        f"{EC2}/delete.py",
        'PROTECTIONS: Final = ("DisableApiTermination", "DisableApiStop")',
        'PROTECTIONS: Final = ("DisableApiTermination",)',
        f"{EC2_OUTAGES}::test_stop_protection_is_lifted_too",
    ),
    Bug(
        "EC2: split a batch for codes that are listed, and no others",
        f"{EC2}/delete.py",
        "return failed.code in DENIED or not isinstance(failed.error, general)",
        "return failed.code in DENIED",
        f"{EC2_OUTAGES}::test_whatever_is_wrong_with_one_saves_no_other",
    ),
    Bug(
        "EC2: a sweep without what is shutting down",
        f"{EC2}/resources.py",
        'LISTED: Final = (*LIVING, "shutting-down")',
        "LISTED: Final = LIVING",
        f"{EC2_OUTAGES}::test_a_vm_that_is_shutting_down_is_still_there",
    ),
    Bug(
        "EC2: ask a dead region for every kind",
        f"{EC2}/sweep.py",
        "            if unanswered and self._elapsed() - began >= SLOW:\n"
        "                self._over = str(failed)\n",
        "",
        f"{EC2_OUTAGES}::test_a_silent_region_is_asked_once_and_hinders_no_other",
    ),
    Bug(
        "EC2: a slow region has no end",
        f"{EC2}/sweep.py",
        "if began > self._until:",
        "if False:",
        f"{EC2_OUTAGES}::test_a_region_that_answers_slowly_has_limited_time",
    ),
    Bug(
        "EC2: another client token for each call",
        f"{EC2}/create_request.py",
        '        "ClientToken": order.instance,\n',
        "",
        f"{EC2_FAULTS}::test_a_failed_launch_is_sent_again_and_is_one_machine",
    ),
    Bug(
        "EC2: a newborn that is not visible is dead",
        f"{EC2}/delete.py",
        "return Outcome(fate=Fate.MISSING)",
        "return Outcome(fate=Fate.ACCEPTED)",
        f"{EC2_FAULTS}::test_a_newborn_that_is_not_visible_is_missing_not_dead",
    ),
)

_GCE_BUGS: Final = (
    Bug(
        "GCE: one list for all zones, or none",
        f"{GCE}/sweep.py",
        "if reader.by_zone and isinstance(failed.error, Uncertain):",
        "if False:",
        f"{GCE_OUTAGES}::test_a_zone_that_is_away_is_the_only_hole",
    ),
    Bug(
        "GCE: whatever stops a VM is its guest",
        f"{GCE}/describe.py",
        "self_ended=record.cause == _BY_GUEST",
        "self_ended=record.cause in _STOPS",
        f"{GCE_STOPS}::test_only_the_guests_own_end_is_the_guests_doing",
    ),
    Bug(
        "GCE: read all operations of a zone",
        f"{GCE}/describe.py",
        """pattern = f'targetLink eq ".*/instances/{_any(wanted)}"'""",
        """pattern = 'targetLink eq ".*"'""",
        f"{GCE_OUTAGES}::test_former_operations_of_a_zone_are_not_read_again",
    ),
    Bug(
        "GCE: an end that failed is an end",
        f"{GCE}/describe.py",
        "well = [operation for operation in operations if not list(operation.error.errors)]",
        "well = list(operations)",
        f"{GCE_STOPS}::test_an_earlier_failed_delete_does_not_explain_a_stop",
    ),
    Bug(
        "GCE: one refused delete ends the others",
        f"{GCE}/delete.py",
        "            return Outcome(fate=Fate.FAILED, error=str(failed))\n"
        "        return Outcome(fate=Fate.ACCEPTED)\n",
        "            raise\n        return Outcome(fate=Fate.ACCEPTED)\n",
        "tests/integration/test_gce.py::test_one_that_may_not_be_deleted_saves_no_other",
    ),
    Bug(
        "GCE: the limit of one VM slows down all writes",
        f"{GCE}/delete.py",
        "if throttled and _OF_ONE not in str(failed):",
        "if throttled:",
        f"{GCE_SDK}::test_only_the_projects_limit_slows_down_all_writes",
    ),
    Bug(
        "GCE: leave what a failed insert made",
        f"{GCE}/create.py",
        "                self._clean_up(order)\n",
        "",
        "tests/integration/test_gce.py::test_what_a_failed_insert_leaves_is_cleaned_up",
    ),
)

_QEMU_BUGS: Final = (
    Bug(
        "QEMU: anybody's process may be a VM of ours",
        f"{QEMU}/processes.py",
        "if name is not None and found is not None and _users(found.pid) <= _trusted(name):",
        "if name is not None and found is not None:",
        f"{LOCAL}::test_another_users_process_is_no_vm_of_ours",
    ),
    Bug(
        "QEMU: write the tombstone before the disk is gone",
        f"{QEMU}/state_dir.py",
        "        _clear(instance_dir.path)\n",
        "",
        f"{LOCAL}::test_a_full_disk_keeps_no_dead_vm",
    ),
    Bug(
        "QEMU: boot whatever the image's file holds",
        f"{QEMU}/image_integrity.py",
        "        if digest != expected:",
        "        if False:",
        f"{FILES}::test_a_changed_file_is_refused_by_name_with_the_fix",
    ),
    Bug(
        "QEMU: let it start programs",
        f"{QEMU}/command_line.py",
        ",spawn=deny",
        "",
        f"{LOCAL}::test_qemu_is_sandboxed_opens_no_path_and_starts_nothing",
    ),
    Bug(
        "QEMU: filter the calls of one table",
        f"{QEMU}/seccomp.py",
        '    add(_IF_AT_LEAST, _X32, "kill")\n',
        "",
        f"{SECCOMP}::test_the_x32_table_is_another_architecture",
    ),
    Bug(
        "QEMU: start it without the filter of calls",
        f"{QEMU}/jail.py",
        "    syscalls.filter_calls(seccomp.encoded())\n",
        "",
        f"{SECCOMP}::test_qemu_starts_once_all_that_holds_it_is_there",
    ),
    Bug(
        "QEMU: start it with the host's files",
        f"{QEMU}/jail.py",
        "    jail_root.enter(program, spec.hide, network.PROXY if spec.proxy else spec.resolver)\n",
        "",
        f"{SECCOMP}::test_qemu_starts_once_all_that_holds_it_is_there",
    ),
)

_SHELL_BUGS: Final = (
    Bug(
        "drop a provider with its open rows",
        "providers/retired_providers.py",
        "d for d in drivers if (own := d.scopes) & (uncovered | alone) or (uncovered and not own)",
        "d for d in drivers if False",
        f"{DROPPED}::test_only_a_provider_with_rows_is_swept_after_its_removal",
    ),
    Bug(
        "show a scope that two drivers have twice",
        "providers/retired_providers.py",
        "                    if self._at(page.scope) is driver:\n"
        "                        yield page\n",
        "                    yield page\n",
        f"{DROPPED}::test_a_page_of_a_scope_that_both_have_comes_once",
    ),
    Bug(
        "end --expired: what is not shown is dead",
        "providers/deletion.py",
        "        alive |= {key: view.ref",
        "        progress.dead |= {key for key in in_scope if key not in seen}\n"
        "        alive |= {key: view.ref",
        "tests/unit/reaper/test_expired.py",
    ),
    Bug(
        "an engine of other providers serves",
        "runtime/background.py",
        "return bool(serving) and available.issuperset(providers)",
        "return bool(serving)",
        f"{SERVING}::test_an_engine_serves_the_providers_that_it_has",
    ),
    Bug(
        "an engine that is silent serves",
        "runtime/background.py",
        "        and beats(member, now)\n",
        "",
        f"{SERVING}::test_a_process_that_lives_and_is_silent_serves_nobody",
    ),
    Bug(
        "adopt a ledger without a note of it",
        "ledger/ledger.py",
        "    witness.note(last)\n",
        "",
        f"{SET_BACK}::test_a_file_that_may_be_a_copy_counts_as_one",
    ),
    Bug(
        "take a copy of a ledger for the ledger",
        "ledger/ledger.py",
        "if recognised and memory is not None and memory.place == witness.place:",
        "if recognised and memory is not None:",
        f"{SET_BACK}::test_a_file_that_may_be_a_copy_counts_as_one",
    ),
    Bug(
        "remove all old logs in one transaction",
        "ledger/removals.py",
        "_CHUNKS: Final = 16\n",
        "_CHUNKS: Final = 10**9\n",
        "tests/integration/test_ledger_steps.py",
    ),
    Bug(
        "count our own pause as the others' silence",
        "lib/change_watch.py",
        " or now - watched.looked > self._gap:",
        ":",
        f"{PEERS}::test_our_own_pause_starts_the_counting_anew",
    ),
    Bug(
        "who cannot be seen is gone at once",
        "engine/membership.py",
        "return self._beats.silent(found.id) if lives is None else not lives",
        "return not lives",
        f"{PEERS}::test_the_unseen_are_gone_after_a_lease_we_watched",
    ),
    Bug(
        "believe one wrong date",
        "providers/common/clock.py",
        "                self._claim = offset\n                return\n",
        "                self._claim = offset\n",
        f"{COMMONS}::test_one_wrong_date_says_nothing",
    ),
    Bug(
        "a retry under a former name waits for ever",
        "engine/completion.py",
        "return latest is not None and self._context.provider_of(latest) is not None",
        "return False",
        f"{RENAMED}::test_a_retry_that_nobody_can_start_ends_with_its_time",
    ),
    Bug(
        "any host's clock ends a retry",
        "engine/completion.py",
        "return latest is not None and self._context.provider_of(latest) is not None",
        "return True",
        f"{RENAMED}::test_who_cannot_tell_a_retrys_time_leaves_it",
    ),
    Bug(
        "believe an exit code before its log",
        "session/protocol.py",
        """                raise ProtocolViolation("the VM's build ended before its log did")\n""",
        "                pass\n",
        "tests/unit/session/test_protocol.py::test_a_lie_is_found",
    ),
    Bug(
        "forget the last bytes when the connection is lost after the end",
        "session/session.py",
        "        self._relay.finish()  # now: the connection may be lost before it closes\n",
        "",
        f"{HOSTILE}::test_a_connection_lost_after_the_end_costs_no_byte",
    ),
    Bug(
        "end a running build without a word when its driver changed",
        "session/session.py",
        "self._can_end = job.build.state in (BuildState.RUNNING, BuildState.COLLECTING) ",
        "self._can_end = False ",
        "tests/integration/test_session.py"
        "::test_a_cancelled_build_is_told_by_whoever_drives_it_next",
    ),
    Bug(
        "claim without counting who else did",
        "ledger/instances.py",
        "fitting = launches if rooms is None else self._fitting(connection, launches, rooms)",
        "fitting = launches",
        "tests/faults/test_claims.py::test_two_engines_keep_one_limit",
    ),
    Bug(
        "take from a VM what was not asked for",
        "lib/archive/files.py",
        "requested.match(path, directory=entry.kind in (EntryKind.DIRECTORY, EntryKind.LINK))",
        "True",
        "tests/unit/lib/test_archive.py::test_what_was_not_asked_for_is_refused",
    ),
    Bug(
        "a glob of directories takes files",
        "lib/globs.py",
        "return not self._directories and last in at",
        "return last in at",
        "tests/unit/lib/test_globs.py::test_the_host_matches_what_the_guest_finds",
    ),
    Bug(
        "obey another user's configuration",
        "config/trust.py",
        "if status.st_uid not in (0, me):",
        "if False:",
        f"{TRUST}::test_another_users_file_is_not_obeyed",
    ),
    Bug(
        "trust one content wherever it lies",
        "config/trust.py",
        "return TrustedFile(digest(content), str(file.resolve())) in entries()",
        "return digest(content) in {one.sha256 for one in entries()}",
        f"{TRUST}::test_trust_is_in_one_content_at_one_place",
    ),
)

BUGS: Final = _EC2_BUGS + _GCE_BUGS + _QEMU_BUGS + _SHELL_BUGS
