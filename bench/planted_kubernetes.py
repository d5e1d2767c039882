"""Bugs to plant in the driver of Kubernetes (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

DRIVER = "tests/integration/test_kubernetes.py"
DOCTOR = "tests/integration/test_kubernetes_doctor.py"
LIMITS = "tests/integration/test_kubernetes_limits.py"
BODIES = "tests/unit/providers/kubernetes/test_bodies.py"
STATES = "tests/unit/providers/kubernetes/test_states.py"
CODES = "tests/unit/providers/kubernetes/test_error_codes.py"
STARTS = "tests/integration/test_kubernetes_starts.py"
WHOLE = "tests/unit/lib/test_whole_answers.py"
ADMISSION = "tests/integration/test_kubernetes_admission.py"

BUGS: Final = (
    Bug(
        "run a build beside a supervisor of another version",
        "providers/kubernetes/unit_version.py",
        '[ "$recipe" = "$0" ] || exit {OLD_UNIT}; ',
        '[ -n "$recipe" ] || exit {OLD_UNIT}; ',
        f"{STATES}::test_a_unit_is_laid_out_by_its_own_recipe_alone",
    ),
    Bug(
        "wait for a node that does not have a pod's runtime class",
        "providers/kubernetes/events.py",
        "return replace(seen, power=Power.STOPPING, detail=words) if words else seen",
        "return replace(seen, detail=words) if words else seen",
        f"{STARTS}::test_a_node_without_the_class_is_told",
    ),
    Bug(
        "wait for room where a cluster's admission refuses a VM's pod",
        "providers/kubernetes/states.py",
        "if line is not None and line.error is BadOrder:",
        "if line is not None and line.error is None:",
        f"{ADMISSION}::test_a_vm_whose_launcher_is_refused_is_told_at_once",
    ),
    Bug(
        "adopt whatever has the name in a cluster",
        "providers/kubernetes/create.py",
        "        if not same_order(found, order):\n",
        "        if not found:\n",
        f"{DRIVER}::test_a_strangers_object_of_that_name_is_left_alone",
    ),
    Bug(
        "adopt another generation's order in a cluster",
        "providers/kubernetes/labels.py",
        '        and labels.get(f"{PREFIX}generation") == order.generation\n'
        "        and notes.get(ORDER) == digest(order)\n",
        "",
        f"{DRIVER}::test_another_installations_order_is_not_adopted",
    ),
    Bug(
        "take a full quota's word for what is born in a cluster",
        "providers/kubernetes/create.py",
        'failed.code == "AlreadyExists" or self._is_born(kind, order, failed):',
        'failed.code == "AlreadyExists":',
        f"{DRIVER}::test_a_full_quota_refuses_nothing_that_is_born",
    ),
    Bug(
        "delete by name alone in a cluster",
        "providers/kubernetes/client.py",
        '            "preconditions": {"uid": uid},\n',
        "",
        f"{DRIVER}::test_another_uid_is_never_deleted",
    ),
    Bug(
        "trust a cluster's garbage collector",
        "providers/kubernetes/delete.py",
        "        return since is not None and self._now() - since >= COLLECTED_WITHIN\n",
        "        return since is None\n",
        f"{DRIVER}::test_without_a_collector_a_second_delete_ends_it",
    ),
    Bug(
        "force a pod away while its node lives",
        "providers/kubernetes/delete.py",
        "lost = force and kind.plural == PODS.plural and self._is_lost(found)",
        "lost = force and kind.plural == PODS.plural",
        f"{DRIVER}::test_a_lost_nodes_pod_lives_until_it_is_gone",
    ),
    Bug(
        "take what is missing in another namespace for dead",
        "providers/kubernetes/describe.py",
        "        if lost:\n            self._identity.confirm(scope)\n",
        "",
        f"{DRIVER}::test_a_namespace_made_anew_is_another_scope",
    ),
    Bug(
        "conclude from a sweep of a namespace made anew",
        "providers/kubernetes/sweep.py",
        "            wrong = dict.fromkeys(KINDS, str(failed))\n",
        "            pass\n",
        f"{DRIVER}::test_a_namespace_made_anew_amid_a_sweep_proves_nothing",
    ),
    Bug(
        "raise a Job's deadline",
        "providers/kubernetes/deadlines.py",
        "if not isinstance(present, int) or seconds >= present:",
        "if not isinstance(present, int):",
        f"{DRIVER}::test_a_lowered_deadline_ends_it_then_and_is_never_raised",
    ),
    Bug(
        "let a build see the processes of vmrunner in its pod",
        "providers/kubernetes/bodies.py",
        '        "shareProcessNamespace": False,\n',
        '        "shareProcessNamespace": True,\n',
        f"{BODIES}::test_nothing_shares_processes_or_the_nodes_network",
    ),
    Bug(
        "leave an orphan of a birth whose Job is gone",
        "providers/kubernetes/bodies.py",
        "    if uid is not None:\n",
        "    if uid is None:\n",
        f"{BODIES}::test_each_child_names_its_job_by_uid",
    ),
    Bug(
        "blame a build for the end of its pod",
        "providers/kubernetes/states.py",
        "    return View(Power.DEAD, detail, preempted=taken)\n",
        "    return View(Power.DEAD, detail, preempted=taken, self_ended=True)\n",
        f"{STATES}::test_a_pods_phase_is_its_power",
    ),
    Bug(
        "take a busy API's birth back half way",
        "providers/kubernetes/create.py",
        "            if isinstance(failed.error, Throttled):\n",
        "            if failed.code == Throttled.__name__:\n",
        f"{DRIVER}::test_a_birth_throttled_half_way_goes_on",
    ),
    Bug(
        "take what a cluster's admission refuses for a missing right",
        "providers/kubernetes/error_codes.py",
        "'\" is forbidden: ', BadOrder, _ADMISSION",
        "'\" is forbidden: ', CredentialsRefused, _ROLE",
        f"{CODES}::test_what_admission_refuses_is_no_missing_right",
    ),
    Bug(
        "blame a build for its node's full disk",
        "providers/kubernetes/states.py",
        '"ephemeral" in message and _NODE_LOW not in message:',
        '"ephemeral" in message:',
        f"{STATES}::test_what_its_node_takes_back_is_preempted",
    ),
    Bug(
        "let a long log kill its unit",
        "providers/kubernetes/bodies.py",
        "max(OUR_MEMORY, BESIDE_LOG + spool)",
        "OUR_MEMORY",
        f"{BODIES}::test_a_log_in_memory_has_its_room",
    ),
    Bug(
        "take a full quota of Jobs for one that was not born",
        "providers/kubernetes/create.py",
        'if failed.code != "AlreadyExists" and not (full and self._is_born(JOBS, order, failed)):',
        'if failed.code != "AlreadyExists":',
        f"{DRIVER}::test_a_full_quota_refuses_nothing_that_is_born",
    ),
    Bug(
        "show a cluster's admission half a unit",
        "providers/kubernetes/doctor.py",
        "    spec = bodies.unit(_NAME, image, shape, size, options)\n",
        "    spec = bodies.unit(_NAME, image, shape, size, options)\n"
        '    spec["containers"] = [\n'
        '        {**each, "securityContext": bodies.confined()} for each in spec["containers"]\n'
        "    ]\n",
        f"{DOCTOR}::test_the_whole_unit_is_shown_to_admission",
    ),
    Bug(
        "show a cluster's admission no VM",
        "providers/kubernetes/doctor.py",
        "        yield from _taken(provider, VMIS, vm)\n",
        "        provider.client.page(VMIS, **dict(limit=str(len(vm))))\n",
        f"{DOCTOR}::test_a_whole_vm_is_shown_to_admission",
    ),
    Bug(
        "believe a gateway that says 404 of a cluster",
        "providers/kubernetes/error_codes.py",
        'MISSING: Final = frozenset({"NotFound"})\n',
        'MISSING: Final = frozenset({"NotFound", "404"})\n',
        f"{CODES}::test_a_gateways_words_prove_nothing",
    ),
    Bug(
        "let an answer of a cluster drip for ever",
        "lib/whole_answers.py",
        '        end = getattr(_THREAD, "end", None)\n',
        "        end = None\n",
        f"{WHOLE}::test_an_answer_has_an_end_as_a_whole",
    ),
    Bug(
        "bound no answer of a cluster that comes by a proxy",
        "lib/whole_answers.py",
        "(client._transport, *client._mounts.values())",
        "(client._transport,)",
        f"{WHOLE}::test_a_proxys_answer_has_one_too",
    ),
    Bug(
        "leave a probe's pod where the process ends",
        "providers/kubernetes/probes.py",
        "            if self._leaving:\n",
        "            if False:\n",
        f"{DOCTOR}::test_a_probe_is_dropped_when_its_process_ends",
    ),
    Bug(
        "take a pod that reaches nothing for walled in",
        "providers/kubernetes/probes.py",
        'if found["network"].shown:',
        "if False:",
        f"{DOCTOR}::test_a_wall_is_shown_by_who_passes_beside_it",
    ),
    Bug(
        "end a build of network none while its cluster is probed",
        "providers/kubernetes/provider.py",
        "            raise Throttled(text, wait=POLL)\n",
        "            raise NoCapacity(text)\n",
        f"{DOCTOR}::test_network_none_waits_for_its_probe",
    ),
    Bug(
        "keep network none without a probe",
        "providers/kubernetes/provider.py",
        "            raise Throttled(text, wait=POLL)\n",
        "            return\n",
        f"{DOCTOR}::test_network_none_waits_for_its_probe",
    ),
    Bug(
        "look at many pods one by one",
        "providers/kubernetes/describe.py",
        "        if len(names) <= SINGLY:\n",
        "        if len(names) <= 10**6:\n",
        f"{DRIVER}::test_many_are_looked_at_in_one_list",
    ),
    Bug(
        "kubernetes: a cluster that was never reached is an empty one",
        "providers/kubernetes/sweep.py",
        "                raise failed.error from failed",
        "                return",
        "tests/integration/test_kubernetes.py"
        "::test_a_cluster_that_was_never_reached_is_no_empty_one",
    ),
    Bug(
        "audit: who shows nothing at all has no survivor",
        "services/audit.py",
        "    return pages, [] if pages else [",
        "    return pages, [] if pages is not None else [",
        "tests/unit/reaper/test_gather.py::test_a_sweep_that_shows_nothing_at_all_is_blind",
    ),
    Bug(
        "reaper: who shows nothing at all was seen whole",
        "reaper/gather.py",
        '            sweep_view.stopped = "it showed nothing at all"',
        "            pass",
        "tests/unit/reaper/test_gather.py::test_a_sweep_that_shows_nothing_at_all_is_blind",
    ),
    Bug(
        "look at a pod that starts twice a second",
        "providers/kubernetes/provider.py",
        "        for pause in STARTING if 0 < len(ids) <= SINGLY else ():\n",
        "        for pause in ():\n",
        f"{STARTS}::test_a_pod_that_starts_is_seen_within_one_look",
    ),
    Bug(
        "hurry a cluster for a pod whose image is being pulled",
        "providers/kubernetes/provider.py",
        "        return young and seen.power is Power.PENDING",
        "        return seen.power is Power.PENDING",
        f"{STARTS}::test_whoever_pulls_an_image_is_looked_at_slowly",
    ),
)
