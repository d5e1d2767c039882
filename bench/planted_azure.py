"""Bugs to plant in the azure driver (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

AZURE = "providers/azure"
AT_AZURE, FAULTS = "tests/integration/test_azure.py", "tests/integration/test_azure_faults.py"
ANSWERS, LOCKS, LOOKS, QUOTAS = (
    f"tests/integration/test_azure_{topic}.py" for topic in ("answers", "locks", "looks", "quotas")
)
DOCUMENT = "localclouds/tests/test_localazure_document.py"
UNIT = "tests/unit/providers/azure"
IMAGES = "tests/integration/test_azure_images.py"
MADE = "tests/integration/test_cloud_images_azure.py"

BUGS: Final = (
    Bug(
        "Azure: an answer that is no list is an empty one",
        f"{AZURE}/client.py",
        "if not isinstance(items, list):",
        "if items is None:",
        f"{ANSWERS}::test_an_answer_that_is_no_list_is_not_empty",
    ),
    Bug(
        "Azure: a VM that was never seen is dead",
        f"{AZURE}/describe.py",
        "        if record is None:\n            return None\n        goes",
        "        record = record or _Record(-SETTLED)\n        goes",
        f"{AT_AZURE}::test_what_was_never_seen_may_be_a_newborn",
    ),
    Bug(
        "Azure: every spot VM that is gone was taken back",
        f"{AZURE}/describe.py",
        "record.spot and not record.ended",
        "record.spot",
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
        "Azure: an image that was finished since the sweep is deleted",
        f"{AZURE}/delete.py",
        "if ref.kind is Kind.IMAGE and not self._unfinished(ref):",
        "if ref.kind is Kind.GROUP:",
        f"{IMAGES}::test_what_was_finished_since_a_sweep_is_not_deleted",
    ),
    Bug(
        "Azure: an image that another version promoted is a leftover",
        "providers/port_images.py",
        "return FINISH_BY in tags and PROMOTED not in tags",
        "return FINISH_BY in tags",
        f"{IMAGES}::test_no_sweep_shows_an_image_that_lasts",
    ),
    Bug(
        "Azure: who is promoted no more becomes a leftover",
        f"{AZURE}/images.py",
        "_without(other.tags, FINISH_BY, PROMOTED)",
        "_without(other.tags, PROMOTED)",
        f"{IMAGES}::test_no_sweep_shows_an_image_that_lasts",
    ),
    Bug(
        "An image that Packer made is not finished",
        "images/cloud/builder.py",
        "                imaging.finish(found)\n",
        "",
        f"{MADE}::test_an_image_is_made_recorded_and_tagged",
    ),
    Bug(
        "Images end before their rows are asked what became of them",
        "reaper/reap_pass.py",
        "self._kill(k for k in late if not image_kills.is_image(k))",
        "self._kill(late)",
        f"{MADE}::test_an_image_that_came_after_its_build_died_is_kept",
    ),
    Bug(
        "No row spares its image",
        "reaper/image_kills.py",
        "if row is not None and row.state is ImageState.READY:",
        "if kills is None:",
        "tests/unit/reaper/test_image_kills.py::test_what_a_row_calls_ready_is_spared_and_finished",
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
        "return _is_of_all_traffic(rule) and bool(targets & _EVERYONE)",
        "return True",
        f"{UNIT}/test_isolation.py::test_half_a_denial_is_none",
    ),
    Bug(
        "Azure: somebody's snapshot is ours by its name",
        f"{AZURE}/resources.py",
        "self._made(Kind.SNAPSHOT, item, None, _standing(item), tags(item))",
        "self._part(Kind.SNAPSHOT, item, None)",
        f"{UNIT}/test_resources.py::test_a_snapshot_is_ours_by_its_tags_alone",
    ),
    Bug(
        "Azure: a proxy's 404 is a death",
        f"{AZURE}/error_codes.py",
        '412: "PreconditionFailed"}',
        '412: "PreconditionFailed", 404: "NotFound"}',
        f"{ANSWERS}::test_a_proxys_404_is_no_death",
    ),
    Bug(
        "Azure: a schedule that was refused is armed",
        f"{AZURE}/deadline_schedules.py",
        "if operation and state not in _NEVER:",
        "if operation:",
        f"{FAULTS}::test_a_schedule_that_will_not_fire_is_none",
    ),
    Bug(
        "Azure: a group that lets nobody in is gone",
        f"{AZURE}/identity.py",
        "return again.code == error_codes.NO_GROUP",
        "return True",
        f"{FAULTS}::test_a_group_that_may_be_there_is_not_empty",
    ),
    Bug(
        "Azure: a denial hides that the group is gone",
        f"{AZURE}/identity.py",
        "error_codes.NO_GROUP):\n        return False",
        "error_codes.NO_GROUP) or failed.code != error_codes.NO_GROUP:\n        return False",
        f"{FAULTS}::test_a_deleted_group_is_read_whole_and_empty",
    ),
    Bug(
        "Azure: nobody reads Retry-After",
        f"{AZURE}/client.py",
        "refused=True, retry_after=wait)",
        "refused=True)",
        f"{FAULTS}::test_a_throttled_call_is_made_again_when_azure_says",
    ),
    Bug(
        "a cloud's word for a pause has no bound",
        "lib/token_bucket.py",
        "min(retry_after, LONGEST_TOLD)",
        "retry_after",
        f"{FAULTS}::test_a_throttled_call_is_made_again_when_azure_says",
    ),
    Bug(
        "Azure: a quota that cannot be read has no room",
        f"{AZURE}/quotas.py",
        "if usage is not None and usage.limit",
        "if usage is None or usage.limit",
        f"{QUOTAS}::test_usages_that_cannot_be_read_hinder_nothing",
    ),
    Bug(
        "Azure: a quota that was full is full for five minutes",
        f"{AZURE}/quotas.py",
        "lacks = self._lacks(pools, sizes, FULL)",
        "lacks = self._lacks(pools, sizes, FITS)",
        f"{QUOTAS}::test_a_quota_that_is_free_again_is_seen",
    ),
    Bug(
        "Azure: launch where a lock keeps all",
        f"{AZURE}/permissions.py",
        'if _WIDE.fullmatch(where := str(lock.get("id"))):',
        'if (where := str(lock.get("id"))) == "":',
        f"{LOCKS}::test_nothing_is_launched_where_nothing_can_be_deleted",
    ),
    Bug(
        "Azure: a refused delete raises no doubt",
        f"{AZURE}/delete.py",
        "        self._refused(failed)\n",
        "",
        f"{LOCKS}::test_a_delete_that_a_lock_refused_stops_launching",
    ),
    Bug(
        "Azure: one answer's absence is a newborn's death",
        f"{AZURE}/describe.py",
        "if not goes and self._elapsed() < record.since + SETTLED:",
        "if not goes and record.turn < 0:",
        f"{LOOKS}::test_a_newborn_that_one_answer_misses_lives",
    ),
    Bug(
        "local Azure: a schedule is told in a field that Azure does not publish",
        "localclouds/vmrunner_localclouds/azure/schedules.py",
        '"opType": "Deallocate"',
        '"operationType": "Deallocate"',
        f"{DOCUMENT}::test_all_that_is_answered_is_as_published",
    ),
)
