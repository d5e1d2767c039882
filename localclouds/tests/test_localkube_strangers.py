"""The local Kubernetes by strangers who know only the real one: Debian's kubectl, PyPI's kubernetes
and lightkube. One scenario through each: a Job that is a deadline, a Secret and a Pod that it owns,
a list by label, an update by an old version, an end by the Job."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Protocol

import lightkube
import pytest
from lightkube.core.exceptions import ApiError
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Pod, Secret
from lightkube.types import CascadeType
from vmrunner_localclouds.kube import LocalKube

from tests.support.kube import KubeApi, job, pod, secret, token_of, vmi
from tests.support.kube import kube as kube  # the fixture
from tests.support.sshd import wait_for


class Stranger(Protocol):
    """One client, as far as the scenario asks."""

    def create(self, body: dict[str, Any]) -> str:
        """Make an object; returns its uid."""

    def names(self, resource: str, label: str) -> list[str]: ...
    def lower(self, seconds: int) -> int:
        """Lower the Job's deadline; returns the new one."""

    def delete_job(self, uid: str) -> None: ...
    def status(self, call: Any) -> int:
        """The status of the refusal that a call meets."""


class Kubectl:
    def __init__(self, kube: KubeApi, directory: Path) -> None:
        program = shutil.which("kubectl")
        if program is None:
            raise RuntimeError("kubectl is missing: apt-get install kubectl")
        config = kube.config(directory)
        self._words = [program, "--kubeconfig", str(config), "--cache-dir", str(directory / "c")]
        self.kube = kube

    def run(self, *words: str, body: Any = None, code: int = 0) -> str:
        text = json.dumps(body) if isinstance(body, dict) else body
        done = subprocess.run(
            [*self._words, *words], input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout + (done.stderr if code else "")

    def create(self, body: dict[str, Any]) -> str:
        made = json.loads(self.run("apply", "-f", "-", "-o", "json", body=body))
        return str(made["metadata"]["uid"])

    def names(self, resource: str, label: str) -> list[str]:
        found = self.run("get", resource, "-l", label, "-o", "name")
        return [line.partition("/")[2] for line in found.split()]

    def lower(self, seconds: int) -> int:
        changed = job(seconds=seconds)
        made = json.loads(self.run("apply", "-f", "-", "-o", "json", body=changed))
        return int(made["spec"]["activeDeadlineSeconds"])

    def delete_job(self, uid: str) -> None:
        self.run("delete", "job", "vm-1", "--wait", "--cascade=foreground")

    def status(self, call: Any) -> int:
        raise NotImplementedError


class Official:
    """PyPI's kubernetes, which takes its time to import."""

    def __init__(self, kube: KubeApi, directory: Path) -> None:
        self._kubernetes = kubernetes = importlib.import_module("kubernetes")
        self._client = kubernetes.config.new_client_from_config(str(kube.config(directory)))
        self.core = kubernetes.client.CoreV1Api(self._client)
        self.batch = kubernetes.client.BatchV1Api(self._client)
        self._namespace = kube.namespace

    def create(self, body: dict[str, Any]) -> str:
        makers = {
            "Job": self.batch.create_namespaced_job,
            "Pod": self.core.create_namespaced_pod,
            "Secret": self.core.create_namespaced_secret,
        }
        made = makers[body["kind"]](self._namespace, body, field_validation="Strict")
        return str(made.metadata.uid)

    def names(self, resource: str, label: str) -> list[str]:
        lists = {
            "jobs": self.batch.list_namespaced_job,
            "pods": self.core.list_namespaced_pod,
            "secrets": self.core.list_namespaced_secret,
        }
        found = lists[resource](self._namespace, label_selector=label)
        return [each.metadata.name for each in found.items]

    def lower(self, seconds: int) -> int:
        patch = {"spec": {"activeDeadlineSeconds": seconds}}
        changed = self.batch.patch_namespaced_job("vm-1", self._namespace, patch)
        return int(changed.spec.active_deadline_seconds)

    def delete_job(self, uid: str) -> None:
        kubernetes = self._kubernetes
        options = kubernetes.client.V1DeleteOptions(
            propagation_policy="Foreground",
            preconditions=kubernetes.client.V1Preconditions(uid=uid),
        )
        self.batch.delete_namespaced_job("vm-1", self._namespace, body=options)

    def status(self, call: Any) -> int:
        with pytest.raises(self._kubernetes.client.exceptions.ApiException) as refused:
            call()
        return int(refused.value.status)

    def close(self) -> None:
        self._client.close()


class Lightkube:
    def __init__(self, kube: KubeApi, directory: Path) -> None:
        config = lightkube.KubeConfig.from_file(str(kube.config(directory)))
        self.client = lightkube.Client(
            config=config, namespace=kube.namespace, field_manager="test", trust_env=False
        )
        self._kinds = {"jobs": Job, "pods": Pod, "secrets": Secret}

    def create(self, body: dict[str, Any]) -> str:
        kind = self._kinds[f"{body['kind'].lower()}s"]
        return str(self.client.create(kind.from_dict(body)).metadata.uid)

    def names(self, resource: str, label: str) -> list[str]:
        key, _, value = label.partition("=")
        found = self.client.list(self._kinds[resource], labels={key: value})
        return [str(each.metadata.name) for each in found]

    def lower(self, seconds: int) -> int:
        changed = self.client.patch(Job, "vm-1", {"spec": {"activeDeadlineSeconds": seconds}})
        return int(changed.spec.activeDeadlineSeconds)

    def delete_job(self, uid: str) -> None:
        self.client.delete(Job, "vm-1", cascade=CascadeType.FOREGROUND)

    def status(self, call: Any) -> int:
        with pytest.raises(ApiError) as refused:
            call()
        return int(refused.value.status.code)


def scenario(stranger: Any, kube: KubeApi) -> None:
    uid = stranger.create(job())
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "vm-1", "uid": uid}
    for body in (secret(owners=[owner]), pod(owners=[owner])):
        body["metadata"]["labels"] = {"vmrunner/instance": "vm-1"}
        assert stranger.create(body)
    for resource in ("jobs", "pods", "secrets"):
        assert stranger.names(resource, "vmrunner/instance=vm-1") == ["vm-1"]
        assert stranger.names(resource, "vmrunner/instance=vm-2") == []
    assert stranger.lower(60) == 60
    stranger.delete_job(uid)
    wait_for(lambda: kube.gone("pods", "vm-1") and kube.gone("secrets", "vm-1"))
    assert kube.gone("jobs.batch", "vm-1")


@pytest.fixture
def kubectl(kube: KubeApi, tmp_path: Path) -> Kubectl:
    return Kubectl(kube, tmp_path)


def test_the_scenario_by_kubectl(kubectl: Kubectl) -> None:
    scenario(kubectl, kubectl.kube)


def test_the_scenario_by_the_official_client(kube: KubeApi, tmp_path: Path) -> None:
    stranger = Official(kube, tmp_path)
    scenario(stranger, kube)
    assert stranger.status(lambda: stranger.core.read_namespaced_pod("no", kube.namespace)) == 404
    stranger.create(secret("a"))
    assert stranger.status(lambda: stranger.create(secret("a"))) == 409
    stranger.close()


def test_the_scenario_by_lightkube(kube: KubeApi, tmp_path: Path) -> None:
    stranger = Lightkube(kube, tmp_path)
    scenario(stranger, kube)
    assert stranger.status(lambda: stranger.client.get(Pod, "no")) == 404
    stranger.create(secret("a"))
    assert stranger.status(lambda: stranger.create(secret("a"))) == 409
    applied = stranger.client.apply(Job.from_dict(job("b")))
    assert applied.metadata.managedFields[0].manager == "test"
    stranger.client.close()


def test_kubectl_tells_of_pods_and_jobs(kubectl: Kubectl) -> None:
    for body in (pod(), job()):
        kubectl.create(body)
    table = kubectl.run("get", "pods,jobs")
    assert "pod/vm-1" in table
    described = kubectl.run("describe", "pod", "vm-1")
    assert "Name:             vm-1" in described
    described = kubectl.run("describe", "job", "vm-1")
    assert "Active Deadline Seconds:     3300s" in described
    assert kubectl.run("get", "pod", "vm-1", "-o", "jsonpath={.spec.restartPolicy}") == "Never"
    kubectl.run("delete", "pod", "vm-1", "--wait")
    kubectl.run("wait", "--for=delete", "pod/vm-1", "--timeout=5s")
    assert "not found" in kubectl.run("get", "pod", "vm-1", code=1)
    assert "unknown field" in kubectl.run("apply", "-f", "-", body=pod(surprise=1), code=1)


def test_kubectl_applies_by_the_server(kubectl: Kubectl) -> None:
    """kubernetes.io, "Server-Side Apply": conflicts, force, and what is applied no more."""
    apply = ("apply", "--server-side", "-f", "-")
    kubectl.run(*apply, body=job(seconds=100, suspend=False))
    other = ("--field-manager", "other")
    refusal = kubectl.run(*apply, *other, body=job(seconds=50), code=1)
    assert "conflict with" in refusal
    assert ".spec.activeDeadlineSeconds" in refusal
    kubectl.run(*apply, *other, "--force-conflicts", body=job(seconds=50))
    found = kubectl.kube.get("jobs.batch", "vm-1").body
    assert found["spec"]["activeDeadlineSeconds"] == 50
    owners = {each["manager"] for each in found["metadata"]["managedFields"]}
    assert owners == {"kubectl", "other"}


@pytest.mark.standin
def test_kubectl_enters_a_pod(kubectl: Kubectl) -> None:
    run_here(kubectl.kube.local)
    kubectl.create(pod())
    into = ("exec", "-i", "vm-1", "-c", "build", "--")
    assert kubectl.run(*into, "cat", body="x" * 100_000) == "x" * 100_000
    assert "exit code 7" in kubectl.run(*into, "sh", "-c", "exit 7", code=7)
    kubectl.kube.local.machines[0].logs["build"] = b"a line\n"
    assert kubectl.run("logs", "vm-1", "-c", "build") == "a line\n"


def test_kubectl_lists_rights(kube: KubeApi, tmp_path: Path) -> None:
    """`auth can-i`, in protobuf, for a role's account."""
    rules = [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]}]
    kube.token, admin = token_of(kube, rules), kube.token
    stranger = Kubectl(kube, tmp_path)
    kube.token = admin
    lines = stranger.run("auth", "can-i", "--list").splitlines()
    (right,) = (line for line in lines if line.startswith("pods/exec"))
    assert right.endswith("[create get]")
    assert stranger.run("auth", "can-i", "create", "pods", "--subresource=exec") == "yes\n"
    assert "no" in stranger.run("auth", "can-i", "delete", "pods", code=1)
    assert ":vmrunner" in stranger.run("auth", "whoami")


@pytest.mark.standin
def test_kubectl_shows_vmis(kubectl: Kubectl) -> None:
    kubectl.create(vmi())
    assert "Running" in kubectl.run("get", "vmi")
    kubectl.run("delete", "vmi", "vm-1", "--wait")
    assert kubectl.names("pods", "vmrunner/instance=vm-1") == []


def run_here(local: LocalKube) -> None:
    """Run what an exec stream names, on this host."""
    pipe = subprocess.PIPE
    local.programs = lambda _, __, words: subprocess.Popen(  # type: ignore[assignment,return-value]
        words, stdin=pipe, stdout=pipe, stderr=pipe
    )


@pytest.fixture(autouse=True)
def _as_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
