"""Bugs to plant in the local Kubernetes (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

KUBE = "localclouds/vmrunner_localclouds/kube"
API, ENDS = "localclouds/tests/test_localkube.py", "localclouds/tests/test_localkube_ends.py"
RIGHTS = "localclouds/tests/test_localkube_rights.py"
STREAMS = "localclouds/tests/test_localkube_streams.py"

POLICIES = "localclouds/tests/test_network_plugin.py"
SECURITY = "localclouds/tests/test_localkube_security.py"
RANGES = "localclouds/tests/test_localkube_limit_ranges.py"

BUGS: Final = (
    Bug(
        "Local Kubernetes: a range's most is no default limit",
        f"{KUBE}/limit_ranges.py",
        '{**item.get("max", {}), **item.get("default", {})}',
        '{**item.get("default", {})}',
        f"{RANGES}::test_defaults_of_a_range_are_its_bounds",
    ),
    Bug(
        "Local Kubernetes: no level judges an init container",
        f"{KUBE}/pod_security.py",
        'for field in ("initContainers", "containers", "ephemeralContainers"):',
        'for field in ("containers", "ephemeralContainers"):',
        f"{SECURITY}::test_init_containers_are_judged_too",
    ),
    Bug(
        "Local Kubernetes: anybody acts as anybody",
        f"{KUBE}/access.py",
        "        if not self.may(user, act):\n"
        '            raise KubeRefusal(403, _refusal(user, act), details={"kind": act.resource})\n'
        "        return User",
        "        return User",
        f"{RIGHTS}::test_who_acts_as_another_has_the_others_rights",
    ),
    Bug(
        "Local Kubernetes: the node lets all of its pods reach it",
        "localclouds/vmrunner_localclouds/pods/walls.py",
        "priority 0; {'; '.join([answers, *out])}; }}\"",
        'priority 0; {answers}; }}"',
        f"{POLICIES}::test_a_wall_drops_what_no_passage_lets_through",
    ),
    Bug(
        "Local Kubernetes: a policy of egress isolates for ingress alone",
        f"{KUBE}/network_plugin.py",
        'default = ["Ingress", *(["Egress"] if spec.get("egress") else [])]',
        'default = ["Ingress"]',
        f"{POLICIES}::test_a_policy_isolates_for_its_types_alone",
    ),
    Bug(
        "Local Kubernetes: one policy overrules another",
        f"{KUBE}/network_plugin.py",
        "for spec in isolating\n",
        "for spec in isolating[:1]\n",
        f"{POLICIES}::test_policies_add_to_one_another",
    ),
    Bug(
        "Local Kubernetes: a namesake of an owner that is gone is an owner",
        f"{KUBE}/garbage.py",
        'return found is not None and found["metadata"]["uid"] == owner["uid"]',
        "return found is not None",
        f"{ENDS}::test_another_object_of_that_name_is_no_owner",
    ),
    Bug(
        "Local Kubernetes: Foreground waits for all dependents",
        f"{KUBE}/garbage.py",
        'if any(o["uid"] == uid and o.get("blockOwnerDeletion") for o in _owners(dependent))',
        'if any(o["uid"] == uid for o in _owners(dependent))',
        f"{ENDS}::test_foreground_waits_only_for_what_blocks",
    ),
    Bug(
        "Local Kubernetes: a pod's deadline may be raised",
        f"{KUBE}/pod_rules.py",
        "elif old is not None and new > old:",
        "elif old is not None and new < 0:",
        f"{ENDS}::test_a_pods_deadline_is_only_lowered",
    ),
    Bug(
        "Local Kubernetes: a later page shows what came since",
        f"{KUBE}/reads.py",
        "        return token.version, kept\n",
        "        return token.version, store.all(kind)\n",
        f"{API}::test_pages_of_a_list_are_one_snapshot",
    ),
    Bug(
        "Local Kubernetes: a rule for some names is one for all",
        f"{KUBE}/access.py",
        "and (not names or act.name in names)",
        "",
        f"{RIGHTS}::test_a_role_grants_what_it_names_and_no_more",
    ),
    Bug(
        "Local Kubernetes: v4 knows the end of one way",
        f"{KUBE}/exec_streams.py",
        "if self._ends_streams and message[:1]",
        "if message[:1]",
        f"{STREAMS}::test_v4_knows_no_end_of_one_way",
    ),
)
