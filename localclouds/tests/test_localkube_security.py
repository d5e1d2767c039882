"""Pod Security admission in the local Kubernetes. The rules are those of
https://kubernetes.io/docs/concepts/security/pod-security-standards/, the labels and modes those of
https://kubernetes.io/docs/concepts/security/pod-security-admission/ (both read 2026-12-03); the
words are kubernetes/pod-security-admission's of 2026-07-01 (policy/check_*.go, admission.go)."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.support.kube import KubeApi, job, kubernetes, pod, vmi
from tests.support.kube import kube as kube  # the fixture

LABEL: Final = "pod-security.kubernetes.io/"
JSON = dict[str, Any]


def enforce(kube: KubeApi, level: str, version: str = "", **modes: str) -> Any:
    """Label this client's namespace."""
    labels = {f"{LABEL}enforce": level} | ({f"{LABEL}enforce-version": version} if version else {})
    labels |= {LABEL + mode: value for mode, value in modes.items()}
    body = {"metadata": {"labels": labels}}
    content = "application/merge-patch+json"
    return kube.ask("PATCH", f"/api/v1/namespaces/{kube.namespace}", body, content=content)


def confined(**more: Any) -> JSON:
    """A container that the strictest level takes."""
    context = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {"name": "a", "image": "debian:13", "securityContext": context | more}


def with_context(**context: Any) -> JSON:
    return pod(containers=[{"name": "a", "image": "i", "securityContext": context}])


def with_volume(**source: Any) -> JSON:
    return pod(containers=[confined()], volumes=[{"name": "v", **source}])


_HOST: Final = {"httpGet": {"port": 80, "host": "10.0.0.1"}}
_SELINUX: Final = {"type": "spc_t", "user": "u", "role": "r"}
_WINDOWS: Final = {"hostProcess": True}
#: A pod that `baseline` refuses → the words after the level.
BASELINE: Final[tuple[tuple[JSON, str], ...]] = (
    (
        with_context(appArmorProfile={"type": "Unconfined"}),
        'forbidden AppArmor profile (container "a" must not set AppArmor profile type to '
        '"Unconfined")',
    ),
    (
        with_context(capabilities={"add": ["NET_ADMIN", "CHOWN", "NET_RAW"]}),
        'non-default capabilities (container "a" must not include "NET_ADMIN", "NET_RAW" in '
        "securityContext.capabilities.add)",
    ),
    (
        pod(hostNetwork=True, hostPID=True, hostIPC=True),
        "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
    ),
    (with_volume(hostPath={"path": "/"}), 'hostPath volumes (volume "v")'),
    (
        pod(
            containers=[
                {"name": "a", "image": "i", "ports": [{"containerPort": 80, "hostPort": 80}]},
                {"name": "b", "image": "i", "ports": [{"containerPort": 81, "hostPort": 81}]},
            ]
        ),
        'hostPort (containers "a", "b" use hostPorts 80, 81)',
    ),
    (
        pod(containers=[{"name": "a", "image": "i", "livenessProbe": _HOST}]),
        'probe or lifecycle host (container "a" uses probe or lifecycle host "10.0.0.1")',
    ),
    (
        with_context(privileged=True),
        'privileged (container "a" must not set securityContext.privileged=true)',
    ),
    (
        with_context(procMount="Unmasked"),
        'procMount (container "a" must not set securityContext.procMount to "Unmasked")',
    ),
    (
        pod(securityContext={"seLinuxOptions": _SELINUX}),
        'seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "spc_t"; user may '
        "not be set; role may not be set)",
    ),
    (
        with_context(seccompProfile={"type": "Unconfined"}),
        'seccompProfile (container "a" must not set securityContext.seccompProfile.type to '
        '"Unconfined")',
    ),
    (
        pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
        "forbidden sysctls (kernel.msgmax)",
    ),
    (
        pod(securityContext={"windowsOptions": _WINDOWS}),
        "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
    ),
)
#: A pod that `restricted` refuses, beside those → the words after the level.
RESTRICTED: Final[tuple[tuple[JSON, str], ...]] = (
    (
        pod(containers=[confined(allowPrivilegeEscalation=None)]),
        'allowPrivilegeEscalation != false (container "a" must set '
        "securityContext.allowPrivilegeEscalation=false)",
    ),
    (
        pod(containers=[confined(capabilities={"add": ["CHOWN"]})]),
        'unrestricted capabilities (container "a" must set securityContext.capabilities.drop='
        '["ALL"]; container "a" must not include "CHOWN" in securityContext.capabilities.add)',
    ),
    (
        with_volume(nfs={"server": "s", "path": "/"}),
        'restricted volume types (volume "v" uses restricted volume type "nfs")',
    ),
    (
        pod(containers=[confined(runAsNonRoot=None)]),
        'runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true)',
    ),
    (
        pod(containers=[confined()], securityContext={"runAsNonRoot": False}),
        "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
    ),
    (
        pod(containers=[confined(runAsUser=0)]),
        'runAsUser=0 (container "a" must not set runAsUser=0)',
    ),
    (
        pod(containers=[confined(seccompProfile=None)]),
        'seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to '
        '"RuntimeDefault" or "Localhost")',
    ),
)


def refused(kube: KubeApi, body: JSON, level: str) -> str:
    """The words of a refusal after its level."""
    answer = kube.create(body)
    assert (answer.status, answer.reason) == (403, "Forbidden"), answer.body
    assert answer.body["details"] == {"name": "vm-1", "kind": "pods"}
    head = f'pods "vm-1" is forbidden: violates PodSecurity "{level}": '
    assert answer.message.startswith(head), answer.message
    return answer.message.removeprefix(head)


@pytest.mark.parametrize(("body", "words"), BASELINE, ids=lambda value: str(value)[:24])
def test_baseline_refuses_each_known_escalation(kube: KubeApi, body: JSON, words: str) -> None:
    enforce(kube, "baseline")
    assert refused(kube, body, "baseline:latest") == words
    enforce(kube, "privileged")
    assert kube.create(body, dryRun="All").status == 201


@pytest.mark.parametrize(("body", "words"), RESTRICTED, ids=lambda value: str(value)[:24])
def test_restricted_refuses_what_is_not_hardened(kube: KubeApi, body: JSON, words: str) -> None:
    enforce(kube, "restricted")
    assert refused(kube, body, "restricted:latest") == words
    enforce(kube, "baseline")
    assert kube.create(body, dryRun="All").status == 201


def test_a_level_takes_what_it_is_for(kube: KubeApi) -> None:
    """The default pod passes `baseline`; one with all that is asked for, `restricted`."""
    enforce(kube, "baseline")
    assert kube.create(pod()).status == 201
    enforce(kube, "restricted")
    adds = {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}
    volumes = [{"name": "v", "emptyDir": {}}, {"name": "w", "secret": {"secretName": "s"}}]
    containers = [confined(capabilities=adds)]
    assert kube.create(pod("vm-2", containers=containers, volumes=volumes)).status == 201


def test_init_containers_are_judged_too(kube: KubeApi) -> None:
    """policy/visitor.go: init containers come first."""
    enforce(kube, "baseline")
    bad = {"name": "lay", "image": "i", "securityContext": {"privileged": True}}
    body = pod(initContainers=[bad], containers=[{**bad, "name": "a"}])
    words = 'privileged (containers "lay", "a" must not set securityContext.privileged=true)'
    assert refused(kube, body, "baseline:latest") == words


def test_all_violations_are_told_baseline_first(kube: KubeApi) -> None:
    """policy/registry.go: by id, those of baseline before those of restricted, none twice."""
    enforce(kube, "restricted")
    body = pod(
        hostPID=True,
        containers=[{"name": "a", "image": "i"}],
        volumes=[{"name": "v", "hostPath": {"path": "/"}}],
    )
    words = refused(kube, body, "restricted:latest")
    reasons = [part.split(" (")[0].lstrip(", ") for part in words.split(")") if part]
    assert reasons == [
        "host namespaces",
        "allowPrivilegeEscalation != false",
        "unrestricted capabilities",
        "restricted volume types",
        "runAsNonRoot != true",
        "seccompProfile",
    ]


def test_a_pinned_version_has_the_rules_of_then(kube: KubeApi) -> None:
    """`runAsUser` since v1.23, hosts of probes since v1.34; one that is not yet out is the
    latest."""
    enforce(kube, "restricted", "v1.22")
    assert kube.create(pod(containers=[confined(runAsUser=0)]), dryRun="All").status == 201
    enforce(kube, "baseline", "v1.33")
    probed = pod(containers=[{"name": "a", "image": "i", "livenessProbe": _HOST}])
    assert kube.create(probed, dryRun="All").status == 201
    enforce(kube, "baseline", "v1.99")
    assert refused(kube, probed, "baseline:v1.99").startswith("probe or lifecycle host")


@pytest.mark.standin
@pytest.mark.parametrize(("version", "status"), [("1.34", 403), ("1.35", 201)])
def test_user_namespaces_relax_it_from_135_on(version: str, status: int) -> None:
    """policy/check_runAsUser.go, check_runAsNonRoot.go, check_procMount_baseline.go."""
    with kubernetes(version=version) as kube:
        enforce(kube, "restricted")
        root = confined(runAsNonRoot=None, runAsUser=0)
        assert kube.create(pod(containers=[root], hostUsers=False)).status == status


@pytest.mark.parametrize("value", ["strict", ""])
def test_an_unknown_level_is_refused_of_the_namespace(kube: KubeApi, value: str) -> None:
    answer = enforce(kube, value)
    assert answer.status == 422
    assert "must be one of privileged, baseline, restricted" in answer.message
    answer = enforce(kube, "baseline", "1.30")
    assert 'must be "latest" or "v1.x"' in answer.message


def test_a_job_is_taken_and_warned_of(kube: KubeApi) -> None:
    """Levels are enforced for pods alone; whoever has a template is warned, at the same level."""
    enforce(kube, "restricted")
    answer = kube.create(job())
    assert answer.status == 201
    warned = answer.headers["Warning"]
    assert warned.startswith(
        '299 - "would violate PodSecurity \\"restricted:latest\\": allowPrivilegeEscalation'
    )
    enforce(kube, "restricted", warn="privileged")
    assert "Warning" not in kube.create(job("vm-2")).headers


def test_a_warning_lets_a_pod_pass(kube: KubeApi) -> None:
    enforce(kube, "baseline", warn="restricted")
    answer = kube.create(pod())
    assert answer.status == 201
    assert 'would violate PodSecurity \\"restricted:latest\\"' in answer.headers["Warning"]


def test_what_is_refused_counts_in_no_quota(kube: KubeApi) -> None:
    """ResourceQuota comes last of all admission."""
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}
    kube.create({"apiVersion": "v1", "kind": "ResourceQuota", **quota})
    enforce(kube, "baseline")
    assert refused(kube, pod(hostPID=True), "baseline:latest").startswith("host namespaces")


def test_an_image_is_not_changed_past_a_level(kube: KubeApi) -> None:
    """admission.go `isSignificantPodUpdate`: images alone; labels may be changed."""
    kube.create(pod(hostPID=True))
    enforce(kube, "baseline")
    assert kube.patch("pods", "vm-1", {"metadata": {"labels": {"a": "b"}}}).status == 200
    changed = kube.get("pods", "vm-1").body
    changed["spec"]["containers"][0]["image"] = "debian:12"
    assert kube.update(changed).status == 403


@pytest.mark.standin
@pytest.mark.parametrize(
    ("level", "root", "words"),
    [
        ("baseline", False, ""),
        ("baseline", True, '"SYS_NICE"'),
        ("restricted", False, "seccompProfile"),
    ],
)
def test_a_launcher_is_judged_as_kubevirt_makes_it(
    kube: KubeApi, level: str, root: bool, words: str
) -> None:
    """kubevirt pkg/virt-controller/services/{rendercontainer,template}.go of 2026: user 107 with
    NET_BIND_SERVICE; as root with SYS_NICE too; a seccomp profile only by its configuration."""
    enforce(kube, level)
    kube.local.virt.root = root
    assert kube.create(vmi()).status == 201
    status = kube.get("virtualmachineinstances.kubevirt.io", "vm-1").body["status"]
    assert status["phase"] == ("Pending" if words else "Running")
    if words:
        (condition,) = status["conditions"]
        assert (condition["type"], condition["reason"]) == ("Synchronized", "FailedCreate")
        text = condition["message"]
        assert text.startswith('failed to create virtual machine pod: pods "virt-launcher-vm-1-')
        assert f'violates PodSecurity "{level}:latest": ' in text
        assert words in text
