"""Bugs to plant in what the azure driver knows of Azure's own limits (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

AZURE = "providers/azure"
LOOKS, SIZES, SCHEDULES, IMAGES, QUOTAS, ANSWERS, LIFE, FAULTS = (
    f"tests/integration/test_azure_{topic}.py"
    for topic in (
        "looks",
        "sizes",
        "schedules",
        "images",
        "quotas",
        "answers",
        "guard_life",
        "faults",
    )
)
NONE = "tests/integration/test_network_none_in_clouds.py"
BUCKETS = "tests/unit/providers/common/test_common.py"
CODES = "tests/unit/providers/azure/test_error_codes.py"

GALLERIES = "tests/integration/test_azure_galleries.py"

BUGS: Final = (
    Bug(
        "Azure: a sweep reads managed images alone",
        f"{AZURE}/sweep.py",
        "return items, more or _VERSIONS",
        "return items, more",
        f"{GALLERIES}::test_an_unfinished_version_is_swept_and_deleted",
    ),
    Bug(
        "Azure: delete a version that was finished since a sweep",
        f"{AZURE}/delete.py",
        "image = self._client(VERSION, group=group, **version.image.named)",
        "return True",
        f"{GALLERIES}::test_an_unfinished_version_is_swept_and_deleted",
    ),
    Bug(
        "Azure: a promoted managed image counts before a later version",
        f"{AZURE}/catalog.py",
        "for image, definition in (*managed, *((made, above) for above, made in pairs))",
        "for image, definition in (managed or [(made, above) for above, made in pairs])",
        f"{GALLERIES}::test_the_promoted_version_is_what_builds_get",
    ),
    Bug(
        "Azure: versions of a definition that builds name are old",
        f"{AZURE}/images.py",
        "if image.ref == identifier or (latest and within in image.ref)",
        "if image.ref == identifier",
        f"{GALLERIES}::test_all_versions_of_a_named_definition_are_in_use",
    ),
    Bug(
        "Azure: more retries than a schedule may have",
        f"{AZURE}/deadline_schedules.py",
        '{"retryCount": 7, "retryWindowInMinutes": 120}',
        '{"retryCount": 8, "retryWindowInMinutes": 120}',
        f"{SCHEDULES}::test_doctor_arms_what_is_not_there",
    ),
    Bug(
        "Azure: any refusal to arm is as good as none",
        f"{AZURE}/deadline_schedules.py",
        'if failed.code in _ELSEWHERE or not failed.code.endswith("NotFound"):',
        "if failed.code in _ELSEWHERE:",
        f"{SCHEDULES}::test_each_refusal_to_arm_has_its_own_fix",
    ),
    Bug(
        "Azure: a schedule that was made by doctor stays",
        f"{AZURE}/deadline_schedules.py",
        "        disarm(client, [made])\n",
        "        del made\n",
        f"{SCHEDULES}::test_an_azure_that_would_arm_anybody_keeps_nothing",
    ),
    Bug(
        "Azure: look at a VM more often than Azure lets anybody",
        f"{AZURE}/client.py",
        '"vm get": Quota(Limit(32, 11 / 60))',
        '"vm get": Quota(Limit(320, 11 / 60))',
        f"{LOOKS}::test_a_slow_boot_is_looked_at_within_its_own_limit",
    ),
    Bug(
        "Azure: a refusal about one VM pauses all",
        f"{AZURE}/client.py",
        "charges[-1] if error_codes.is_of_all(error) else charges[0]",
        "charges[-1]",
        f"{LOOKS}::test_a_refusal_of_one_vm_pauses_that_one_alone",
    ),
    Bug(
        "Azure: a refusal of the subscription pauses one VM",
        f"{AZURE}/client.py",
        "charges[-1] if error_codes.is_of_all(error) else charges[0]",
        "charges[0]",
        f"{LOOKS}::test_a_refusal_of_the_subscription_pauses_all",
    ),
    Bug(
        "Azure: who may not be looked at takes a turn",
        f"{AZURE}/describe.py",
        "            if viewable:\n                turns[ref]",
        "            if ref:\n                turns[ref]",
        f"{LOOKS}::test_of_many_that_change_each_has_its_own_limit",
    ),
    Bug(
        "Azure: offer sizes that do not boot the image",
        f"{AZURE}/provider.py",
        "for name, size in fits.items() if not lacks[name]",
        "for name, size in fits.items()",
        f"{SIZES}::test_a_size_that_boots_no_image_is_not_offered",
    ),
    Bug(
        "Azure: a size with NVMe alone is ordered as any other",
        f"{AZURE}/create.py",
        'controller=size.controller if size is not None else "",',
        'controller="",',
        f"{SIZES}::test_an_image_of_a_gallery_boots_on_either_disk",
    ),
    Bug(
        "Azure: no ephemeral disk on NVMe",
        f"{AZURE}/catalog.py",
        '        local["NvmeDisk"] = _int(capabilities, "NvmeDiskSizeInMiB") << 20\n',
        "",
        f"{SIZES}::test_an_ephemeral_disk_of_the_sixth_generation_is_on_nvme",
    ),
    Bug(
        "Azure: any number of starts from one managed image",
        f"{AZURE}/boots.py",
        "others >= most",
        "others > 10 * most",
        f"{IMAGES}::test_one_managed_image_starts_twenty_at_once",
    ),
    Bug(
        "Azure: a start that was refused counts on",
        f"{AZURE}/create.py",
        "                self._boots.end(order.instance)\n",
        "                pass\n",
        f"{IMAGES}::test_a_start_that_was_refused_counts_no_more",
    ),
    Bug(
        "Azure: an order that was never sent counts on",
        f"{AZURE}/create.py",
        "        except BadOrder:  # Azure was not asked\n"
        "            self._boots.end(order.instance)\n",
        "        except BadOrder:  # Azure was not asked\n",
        f"{IMAGES}::test_an_order_that_cannot_be_sent_counts_no_more",
    ),
    Bug(
        "Azure: a start that was deleted counts on",
        f"{AZURE}/describe.py",
        'Azure took nothing back."""\n        self._booted(ref.id)\n',
        'Azure took nothing back."""\n',
        f"{IMAGES}::test_a_start_that_was_deleted_counts_no_more",
    ),
    Bug(
        "Azure: Compute's one sentence pauses all",
        f"{AZURE}/error_codes.py",
        'return code != _NOT_ALLOWED and "subscription" in',
        'return "subscription" in',
        f"{LOOKS}::test_what_compute_says_of_the_subscription_is_of_one_vm",
    ),
    Bug(
        "Azure: a closed VM may be asked by others",
        f"{AZURE}/doctor.py",
        'beside = holes(groups, own_ranges, public=options.address == "public")',
        "beside = holes((), own_ranges, public=False) if not groups else ()",
        f"{NONE}::test_azure_doctor_tells_who_gets_in",
    ),
    Bug(
        "a call that makes a bucket is not counted",
        "providers/common/rate_limits.py",
        "                self._drop_full()\n            buckets = self._of(place, quota)\n",
        "                self._drop_full()\n"
        "            buckets = self._of(place, quota)\n"
        "            if len(self._buckets) > KEPT_BUCKETS:\n"
        "                self._drop_full()\n",
        f"{BUCKETS}::test_of_many_places_each_call_counts",
    ),
    Bug(
        "Azure: public addresses are without end",
        f"{AZURE}/quotas.py",
        "            found |= self._listed(NETWORK_USAGE)\n",
        "            pass\n",
        f"{QUOTAS}::test_a_location_without_public_addresses_is_not_offered",
    ),
    Bug(
        "Azure: the SDK's tracebacks in the log",
        f"{AZURE}/client.py",
        "    _sdk.setLevel(logging.ERROR)\n",
        "    pass\n",
        f"{ANSWERS}::test_a_gateways_page_is_one_line_and_no_traceback",
    ),
    Bug(
        "Azure: an app without its code is a guard",
        f"{AZURE}/guard.py",
        "    if not guard_liveness.lives(last, now()):\n        return None\n",
        "",
        f"{LIFE}::test_an_app_without_our_code_guards_nothing",
    ),
    Bug(
        "Azure: a full subnet ends the build",
        f"{AZURE}/error_codes.py",
        '        "SubnetIsFull",\n',
        "",
        f"{FAULTS}::test_a_full_subnet_is_a_lack_of_room",
    ),
    Bug(
        "Azure: the spot market of others is tried size by size",
        f"{AZURE}/create.py",
        "                self._dry.shut(offer.market, failed.code)\n",
        "                pass\n",
        f"{FAULTS}::test_who_may_have_no_spot_gets_on_demand",
    ),
    Bug(
        "Azure: a 412 of another code is no VM that exists",
        f"{AZURE}/error_codes.py",
        "_by_status(status) if status == 412 or not code else code",
        "_by_status(status) if not code else code",
        f"{CODES}::test_what_is_there_and_what_is_not",
    ),
    Bug(
        "Azure: a policy is a missing right",
        f"{AZURE}/error_codes.py",
        "    if code in DISALLOWED:\n",
        "    if code in DISALLOWED - DISALLOWED:\n",
        f"{CODES}::test_a_policy_is_named_and_no_right_is_asked_for",
    ),
)
