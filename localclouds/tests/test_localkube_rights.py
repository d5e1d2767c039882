"""Rights and quotas in the local Kubernetes: RBAC of a role, reviews of oneself, ResourceQuota.
Sources are of kubernetes 1.34.2."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.kube import KubeApi, job, pod, secret, token_of, vmi
from tests.support.kube import kube as kube  # the fixture

RULES = [
    {
        "apiGroups": ["batch"],
        "resources": ["jobs"],
        "verbs": ["create", "get", "list", "delete", "patch"],
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
    {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"]},
    {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["mine"],
        "verbs": ["get"],
    },
]


def test_a_role_grants_what_it_names_and_no_more(kube: KubeApi) -> None:
    """plugin/pkg/auth/authorizer/rbac/rbac.go, pkg/apis/rbac/v1/evaluation_helpers.go."""
    token = token_of(kube, RULES)
    kube.create(secret("mine"))
    kube.create(secret("theirs"))
    statuses = {
        "jobs": kube.ask("POST", kube.path("jobs.batch"), job(), token=token).status,
        "pods": kube.ask("GET", kube.path("pods"), token=token).status,
        "watch": kube.ask("GET", kube.path("pods"), token=token, watch="1").status,
        "create pods": kube.ask("POST", kube.path("pods"), pod(), token=token).status,
        "mine": kube.ask("GET", kube.path("secrets", "mine"), token=token).status,
        "theirs": kube.ask("GET", kube.path("secrets", "theirs"), token=token).status,
        "all pods": kube.ask("GET", "/api/v1/pods", token=token).status,
        "nodes": kube.ask("GET", "/api/v1/nodes", token=token).status,
        "default": kube.ask("GET", "/api/v1/namespaces/default/pods", token=token).status,
        "version": kube.ask("GET", "/version", token=token).status,
    }
    assert statuses == {
        "jobs": 201,
        "pods": 200,
        "watch": 403,
        "create pods": 403,
        "mine": 200,
        "theirs": 403,
        "all pods": 403,
        "nodes": 403,
        "default": 403,
        "version": 200,
    }
    refused = kube.ask("DELETE", kube.path("pods", "vm-1"), token=token)
    account = f"system:serviceaccount:{kube.namespace}:vmrunner"
    assert refused.message == (
        f'pods "vm-1" is forbidden: User "{account}" cannot delete resource "pods" in API group "" '
        f'in the namespace "{kube.namespace}"'
    )


@pytest.mark.parametrize(
    ("verb", "group", "resource", "sub", "allowed"),
    [
        ("delete", "batch", "jobs", "", True),
        ("watch", "batch", "jobs", "", False),
        ("get", "", "pods", "exec", True),
        ("create", "", "pods", "exec", True),
        ("get", "", "pods", "log", False),
        ("delete", "", "secrets", "", False),
    ],
)
def test_one_learns_ones_rights(
    kube: KubeApi, verb: str, group: str, resource: str, sub: str, allowed: bool
) -> None:
    """SelfSubjectAccessReview: kubernetes.io, "Authorization Overview"."""
    wanted = {"namespace": kube.namespace, "verb": verb, "group": group, "resource": resource}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": wanted | ({"subresource": sub} if sub else {})},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = kube.ask("POST", path, body, token=token_of(kube, RULES))
    assert answer.status == 201
    assert answer.body["status"]["allowed"] is allowed


def test_one_lists_ones_rights(kube: KubeApi) -> None:
    """SelfSubjectRulesReview, as `kubectl auth can-i --list` asks."""
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": kube.namespace},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    found = kube.ask("POST", path, body, token=token_of(kube, RULES)).body["status"][
        "resourceRules"
    ]
    rules = [each for each in found if "jobs" in each["resources"]]
    assert set(rules[0]["verbs"]) == {"create", "get", "list", "delete", "patch"}


def test_who_acts_as_another_has_the_others_rights(kube: KubeApi, tmp_path: Path) -> None:
    """kubernetes.io, "User impersonation": `kubectl --as`, which needs a right of its own."""
    account = f"system:serviceaccount:{kube.namespace}:vmrunner"
    token = token_of(kube, RULES)

    def may(verb: str, *as_: str, token: str = "") -> str:
        words = ("auth", "can-i", verb, "jobs.batch", "-n", kube.namespace, *as_)
        config = kube.config(tmp_path, token)
        done = subprocess.run(
            ["kubectl", "--kubeconfig", config, *words], capture_output=True, text=True, check=False
        )
        return (done.stdout + done.stderr).strip()

    assert may("update") == "yes"
    assert may("update", "--as", account) == "no"
    assert may("delete", "--as", account) == "yes"
    assert may("delete", "--as", "somebody") == "no"
    assert "cannot impersonate" in may("delete", "--as", "system:admin", token=token)


@pytest.mark.standin
def test_a_token_expires(kube: KubeApi) -> None:
    """kubernetes.io, "Managing Service Accounts": tokens are bound in time; 401 after it."""
    token = token_of(kube, RULES)
    assert kube.ask("GET", kube.path("pods"), token=token).status == 200
    kube.clock.advance(3601)
    assert kube.ask("GET", kube.path("pods"), token=token).status == 401


def quota(**hard: str) -> dict[str, Any]:
    spec = {"hard": {key.replace("_", ".").replace("-dot-", "/"): v for key, v in hard.items()}}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": spec}


def test_a_quota_refuses_what_is_too_much(kube: KubeApi) -> None:
    """plugin/pkg/admission/resourcequota/controller.go `CheckRequest`."""
    kube.create({**quota(), "spec": {"hard": {"pods": "2", "count/jobs.batch": "1"}}})
    kube.until(lambda: "used" in kube.get("resourcequotas", "q").body.get("status", {}))
    statuses = [kube.create(pod(f"vm-{number}")).status for number in range(3)]
    assert statuses == [201, 201, 403]
    refused = kube.create(pod("vm-4"))
    assert "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2" in refused.message
    assert [kube.create(job(name)).status for name in ("vm-1", "vm-2")] == [201, 403]
    kube.delete("pods", "vm-0", gracePeriodSeconds=0)
    kube.until(lambda: kube.get("resourcequotas", "q").body["status"]["used"]["pods"] == "1")
    assert kube.create(pod("vm-5")).status == 201


def test_a_quota_of_cpus_wants_requests(kube: KubeApi) -> None:
    """`failed quota: … must specify`: pkg/quota/v1/evaluator/core/pods.go `Constraints`."""
    kube.create({**quota(), "spec": {"hard": {"requests.cpu": "2500m"}}})
    kube.until(lambda: "used" in kube.get("resourcequotas", "q").body.get("status", {}))
    refused = kube.create(pod())
    assert (refused.status, "must specify requests.cpu" in refused.message) == (403, True)
    resources = {"limits": {"cpu": "1"}}
    containers = [{"name": each, "image": "a", "resources": resources} for each in ("a", "b")]
    assert kube.create(pod("vm-1", containers=containers)).status == 201
    refused = kube.create(pod("vm-2", containers=containers))
    assert refused.status == 403
    assert "requested: requests.cpu=2, used: requests.cpu=2, limited: requests.cpu=2500m" in (
        refused.message
    )


@pytest.mark.standin
def test_a_vmi_waits_while_its_launcher_is_refused(kube: KubeApi) -> None:
    """kubevirt watch/vmi: condition Synchronized False, reason FailedCreate."""
    kube.create({**quota(), "spec": {"hard": {"pods": "0"}}})
    assert kube.create(vmi()).status == 201
    kind = "virtualmachineinstances.kubevirt.io"
    status = kube.get(kind, "vm-1").body["status"]
    (condition,) = status["conditions"]
    assert (status["phase"], condition["reason"]) == ("Pending", "FailedCreate")
    assert "exceeded quota" in condition["message"]
    kube.delete("resourcequotas", "q")
    kube.clock.advance(6)
    assert kube.get(kind, "vm-1").body["status"]["phase"] == "Running"
