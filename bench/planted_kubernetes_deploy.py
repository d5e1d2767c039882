"""Bugs to plant in what an operator of a cluster meets (`mutations.py`)."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

DEPLOY = "tests/integration/test_kubernetes_deploy.py"
CHART = "tests/integration/test_kubernetes_chart.py"
DOCTOR = "tests/integration/test_kubernetes_doctor.py"
PERMISSIONS = "providers/kubernetes/permissions.py"

BUGS: Final = (
    Bug(
        "kubernetes: ask a node without a token whether it is ready",
        "deploy/kubernetes/chart/templates/statefulset.yaml",
        "readinessProbe:\n            httpGet: {path: /healthz,",
        "readinessProbe:\n            httpGet: {path: /readyz,",
        f"{CHART}::test_probes_are_answered_without_a_token",
    ),
    Bug(
        "kubernetes: a container of a pod names no request, which a quota refuses",
        "providers/kubernetes/bodies.py",
        '        "resources": SMALL,\n',
        "",
        f"{DEPLOY}::test_the_quota_takes_twenty_builds_and_refuses_one_more",
    ),
    Bug(
        "kubernetes: want a right that the role does not give",
        PERMISSIONS,
        '*_of("namespaces", "get"),',
        '*_of("namespaces", "get list"),',
        f"{DEPLOY}::test_the_role_is_what_the_driver_asks_for",
    ),
    Bug(
        "kubernetes: ask for no right to end a VM of a former configuration",
        PERMISSIONS,
        '*_of(_VMIS[0], "delete get list", _VMIS[1]),',
        '*_of(_VMIS[0], "get list", _VMIS[1]),',
        f"{DEPLOY}::test_each_way_runs_with_its_own_rights_alone",
    ),
    Bug(
        "kubernetes: doctor takes a quota too small for a class that is unknown",
        "providers/kubernetes/doctor.py",
        "if not isinstance(failed.error, QuotaExceeded):",
        "if True:",
        f"{DOCTOR}::test_a_planted_mistake_is_told_with_its_fix",
    ),
    Bug(
        "kubernetes: network none has the label of open",
        "providers/kubernetes/bodies.py",
        'return "none" if network is Network.NONE else "open"',
        'return "closed" if network is Network.NONE else "open"',
        f"{DEPLOY}::test_the_label_has_no_third_value",
    ),
)
