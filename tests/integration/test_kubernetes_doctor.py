"""`doctor` for Kubernetes: each planted mistake with its fix; and what a try alone shows."""

from __future__ import annotations

import dataclasses
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from vmrunner_localclouds.common.faults import RequestFate
from vmrunner_localclouds.kube import FORBIDDEN
from vmrunner_localclouds.kube.access import User
from vmrunner_localclouds.kube.kinds import (
    JOBS,
    LIMIT_RANGES,
    PODS,
    RESOURCE_QUOTAS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    VMIS,
)

from tests.support.kube_driver import Cluster, cluster, make_order
from vmrunner.errors import BadOrder, ConfigError, CredentialsRefused, NoCapacity, Throttled
from vmrunner.lib import unit_recipe
from vmrunner.model import Finding, Level, Network, Spec
from vmrunner.providers.kubernetes.permissions import OPTIONAL, needed
from vmrunner.providers.kubernetes.probes import UNKNOWN
from vmrunner.providers.kubernetes.provider import KubernetesProvider

Plant = Callable[[Cluster], dict[str, Any]]


class Containers:
    """What runs in a probe's pod: programs of this host, as far as a probe asks for them. It is
    `reached` by a pod of network none, `open_` by one of network open, `free` by one without the
    label."""

    def __init__(
        self,
        *,
        recipe: str = unit_recipe.current(),
        reached: str = "",
        open_: str = "the internet",
        free: str = "the DNS service",
    ) -> None:
        self.recipe = recipe
        self.reached = {"none": reached, "open": open_, None: free}

    def __call__(self, machine: Any, _: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        label = machine.last["metadata"]["labels"].get("vmrunner/network")
        answers = {"cat": self.recipe, "python3": f"reached: {self.reached[label]}"}
        words = ["echo", answers[command[0]]] if command[0] in answers else command
        pipe = subprocess.PIPE
        return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe)


@pytest.fixture
def kube() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


def inside(kube: Cluster, containers: Containers) -> None:
    """Each pod has these containers in it."""
    kube.cloud.programs = containers


def findings(provider: KubernetesProvider) -> dict[str, Finding]:
    """The worst of each check."""
    order = (Level.OK, Level.WARNING, Level.ERROR)
    found: dict[str, Finding] = {}
    for finding in provider.check():
        if finding.check == "clock":
            continue  # a virtual one
        if finding.check not in found or order.index(finding.level) > order.index(
            found[finding.check].level
        ):
            found[finding.check] = finding
    return found


def test_where_all_is_well_nothing_is_wrong(kube: Cluster) -> None:
    inside(kube, Containers())
    for runs in ("vmi", "pod"):
        found = findings(kube.provider(runs, unit_image=_IMAGE))
        assert {f.level for f in found.values()} == {Level.OK}, found
    assert found["exec"].message == "gvisor: a pod of it is reached by exec"
    assert not kube.cloud.all(JOBS)
    kube.wait(lambda: not kube.cloud.all(PODS) and not kube.cloud.all(SECRETS))


_IMAGE = f"registry.example/unit@sha256:{'b' * 64}"


def no_file(kube: Cluster) -> dict[str, Any]:
    return {"kubeconfig": str(kube.cache / "none")}


def no_context(_: Cluster) -> dict[str, Any]:
    return {"context": "production"}


def bad_token(kube: Cluster) -> dict[str, Any]:
    config = kube.cache / "config"
    config.write_text(yaml.safe_dump(kube.cloud.config("wrong")))
    return {"kubeconfig": str(config)}


def no_namespace(_: Cluster) -> dict[str, Any]:
    return {"namespace": "builds"}


def bad_authority(kube: Cluster) -> dict[str, Any]:
    kube.cloud.renew_certificate()
    return {}


def no_class(kube: Cluster) -> dict[str, Any]:
    return {"runs": "pod", "runtime_class": "kata-fc", "unit_image": _IMAGE}


def a_tag(_: Cluster) -> dict[str, Any]:
    return {"image": "registry.example/vmrunner:latest"}


def another_installation(kube: Cluster) -> dict[str, Any]:
    provider = kube.provider(installation="00000000-0000-4000-8000-00000000000f")
    order = make_order(provider)
    provider.create(dataclasses.replace(order, installation="00000000-0000-4000-8000-00000000000f"))
    return {}


def no_collector(kube: Cluster) -> dict[str, Any]:
    kube.cloud.garbage.on = False
    return {}


def no_deadlines(kube: Cluster) -> dict[str, Any]:
    kube.cloud.jobs.on = False
    return {}


def an_old_unit(kube: Cluster) -> dict[str, Any]:
    inside(kube, Containers(recipe="0123456789"))
    return {"runs": "pod", "unit_image": _IMAGE}


def an_open_network(kube: Cluster) -> dict[str, Any]:
    inside(kube, Containers(reached="the API server"))
    return {"runs": "pod", "unit_image": _IMAGE}


def a_broken_network(kube: Cluster) -> dict[str, Any]:
    inside(kube, Containers(open_="", free=""))
    return {"runs": "pod", "unit_image": _IMAGE}


def no_unit(_: Cluster) -> dict[str, Any]:
    return {"runs": "pod", "unit_image": None}


def finished_jobs_stay(kube: Cluster) -> dict[str, Any]:
    kube.cloud.ttl.on = False
    return {}


def a_small_quota(kube: Cluster) -> dict[str, Any]:
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"requests.cpu": "1"}}}
    kube.cloud.add_object(RESOURCE_QUOTAS, quota)
    inside(kube, Containers())
    return {"runs": "pod", "unit_image": _IMAGE}


def a_used_up_quota(kube: Cluster) -> dict[str, Any]:
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}}
    kube.cloud.add_object(RESOURCE_QUOTAS, quota)
    spec = {"containers": [{"name": "c", "image": "i"}]}
    kube.cloud.add_object(PODS, {"metadata": {"name": "busy"}, "spec": spec})
    return {}


def a_range_for_disks(kube: Cluster) -> dict[str, Any]:
    spec = {"limits": [{"type": "PersistentVolumeClaim", "max": {"storage": "10Gi"}}]}
    kube.cloud.add_object(LIMIT_RANGES, {"metadata": {"name": "l"}, "spec": spec})
    return {"image": {"data_volume": {"claim": "vmrunner-image", "size": "40GiB"}}}


def a_hard_level(kube: Cluster) -> dict[str, Any]:
    kube.label(enforce="restricted")
    return {}


def a_hard_level_for_pods(kube: Cluster) -> dict[str, Any]:
    kube.label(enforce="restricted")
    inside(kube, Containers())
    return {"runs": "pod", "unit_image": _IMAGE}


def no_kubevirt(kube: Cluster) -> dict[str, Any]:
    del kube.cloud.kinds["kubevirt.io", "v1", "virtualmachineinstances"]
    return {}


def a_quota_of_vms(kube: Cluster) -> dict[str, Any]:
    hard = {"count/virtualmachineinstances.kubevirt.io": "0"}
    kube.cloud.add_object(RESOURCE_QUOTAS, {"metadata": {"name": "vms"}, "spec": {"hard": hard}})
    return {}


@pytest.mark.parametrize(
    ("plant", "check", "words", "fix"),
    [
        (no_file, "namespace", "no such file", "set kubeconfig or KUBECONFIG"),
        (no_context, "namespace", "no context 'production'", "one of: local"),
        (bad_token, "namespace", "401", "renew the token"),
        (no_namespace, "namespace", 'namespaces "builds" not found', "make the namespace"),
        (bad_authority, "namespace", "certificate verify failed", "certificate-authority"),
        (no_class, "cluster", "kata-fc", "kubectl get runtimeclass"),
        (a_tag, "cluster", "registry.example/vmrunner:latest", "name it by its digest"),
        (another_installation, "namespace", "of another installation", "give this one its own"),
        (no_collector, "controllers", "collector left what it owned", "garbage-collector"),
        (no_deadlines, "controllers", "no controller ended it", "kube-controller-manager"),
        (an_old_unit, "unit image", "its recipe is 0123456789", "image build --unit"),
        (an_open_network, "network none", "reaches the API server", "network.yaml"),
        (a_broken_network, "network none", "shows no wall", "let pods of network open out"),
        (no_unit, "cluster", "unit_image: none", "image build --unit"),
        (finished_jobs_stay, "controllers", "no controller ended it", "ttl-after-finished"),
        (a_small_quota, "quota", "requests.cpu=2", "raise the namespace's ResourceQuota"),
        (a_used_up_quota, "quota", "pods is used up", "raise it"),
        (no_kubevirt, "cluster", "could not find the requested resource", "install KubeVirt"),
        (a_quota_of_vms, "quota", "limited: count/virtualmachineinstances", "raise the namespace"),
        (a_range_for_disks, "cluster", "maximum storage usage", "LimitRanges"),
        (a_hard_level, "Pod Security", "restricted is enforced", "`baseline`"),
        (a_hard_level_for_pods, "cluster", 'violates PodSecurity "restricted', "`baseline`"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_mistake_is_told_with_its_fix(
    kube: Cluster, plant: Plant, check: str, words: str, fix: str
) -> None:
    options = plant(kube)
    provider = kube.provider(options.pop("runs", "vmi"), **options)
    found = findings(provider)[check]
    assert found.level is not Level.OK
    assert words in found.message
    assert fix in found.fix


def user(kube: Cluster, *left_out: str) -> Path:
    """A kubeconfig of somebody who has all rights that are needed but these."""
    provider = kube.provider("pod")
    permissions = {*needed(kube.provider().options), *needed(provider.options), *OPTIONAL}
    rules = [
        {"verbs": [r.verb], "apiGroups": [r.group], "resources": [r.resource]}
        for r in permissions
        if str(r) not in left_out
    ]
    cloud = kube.cloud
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "ci"}
    subject = {"kind": "User", "name": "ci", "apiGroup": "rbac.authorization.k8s.io"}
    cloud.add_object(ROLES, {"metadata": {"name": "ci"}, "rules": rules})
    binding = {"metadata": {"name": "ci"}, "roleRef": reference, "subjects": [subject]}
    cloud.add_object(ROLE_BINDINGS, binding)
    token = cloud.access.token(User(name="ci", groups=("system:authenticated",)))
    config = kube.cache / "config"
    config.write_text(yaml.safe_dump(cloud.config(token)))
    return config


@pytest.mark.parametrize("runs", ["vmi", "pod"])
def test_the_role_has_all_that_is_needed(kube: Cluster, runs: str) -> None:
    inside(kube, Containers())
    provider = kube.provider(runs, kubeconfig=str(user(kube)), unit_image=_IMAGE)
    found = findings(provider)
    assert {f.level for f in found.values()} == {Level.OK}, found


@pytest.mark.parametrize("right", ["patch jobs", "create pods/exec", "get namespaces"])
def test_a_missing_right_is_named(kube: Cluster, right: str) -> None:
    inside(kube, Containers())
    provider = kube.provider("pod", kubeconfig=str(user(kube, right)))
    found = findings(provider)
    if right == "get namespaces":
        assert found["namespace"].level is Level.ERROR
        assert "role.yaml" in found["namespace"].fix
        return
    assert found["rights"].message.startswith(f"denied: {right}")
    assert ("1.35" in found["rights"].message) is (right == "create pods/exec")
    assert "role.yaml" in found["rights"].fix


def test_the_whole_unit_is_shown_to_admission(kube: Cluster) -> None:
    """Not a pod that asks for less: a policy against one of its capabilities refuses each build."""

    def policy(request: Any) -> RequestFate | None:
        if request.action != "pods.create" or b"DAC_OVERRIDE" not in request.body:
            return None
        return FORBIDDEN._replace(message='admission webhook "p" denied the request: DAC_OVERRIDE')

    inside(kube, Containers())
    kube.cloud.faults.on_request = policy
    found = findings(kube.provider("pod", unit_image=_IMAGE))["cluster"]
    assert found.level is Level.ERROR
    assert "DAC_OVERRIDE" in found.message
    assert "admission policy" in found.fix


def test_a_whole_vm_is_shown_to_admission(kube: Cluster) -> None:
    """KubeVirt's webhooks judge what is asked for in a build's VM, and nothing is made of it."""

    def policy(request: Any) -> RequestFate | None:
        if request.action != "virtualmachineinstances.create" or b"masquerade" not in request.body:
            return None
        words = 'admission webhook "virtualmachineinstances-create-validator.kubevirt.io" denied '
        return FORBIDDEN._replace(message=words + "the request: masquerade is not permitted")

    assert findings(kube.provider())["KubeVirt"].message == "a VM passes the cluster's admission"
    kube.cloud.faults.on_request = policy
    found = findings(kube.provider())["cluster"]
    assert found.level is Level.ERROR
    assert "masquerade is not permitted" in found.message
    assert not kube.cloud.all(VMIS)


def test_who_may_not_delete_launches_nothing(kube: Cluster) -> None:
    provider = kube.provider(kubeconfig=str(user(kube, "delete jobs")))
    with pytest.raises(CredentialsRefused, match="may not delete"):
        provider.offers(Spec())
    assert findings(provider)["delete"].level is Level.ERROR
    assert list(provider.sweep())


def test_a_class_that_exec_does_not_reach_is_refused(kube: Cluster) -> None:
    """The words are the cluster's own."""
    found = findings(kube.provider("pod"))["exec"]
    assert found.level is Level.ERROR
    assert found.message.startswith("gvisor: exec in a probe pod: ")
    assert "kubectl exec" in found.fix


def test_probes_are_made_once_a_day(kube: Cluster) -> None:
    inside(kube, Containers())
    provider = kube.provider("pod")
    for _ in range(2):
        findings(provider)
        findings(kube.provider("pod"))  # another process of this host
    assert kube.cloud.count("jobs.create") == 2 + 4
    assert kube.cloud.count("pods.create") == 2 + 4  # one dry run a check
    kube.clock.advance(86401)
    findings(provider)
    assert kube.cloud.count("pods.create") == 4 + 5


def test_network_none_waits_for_its_probe(kube: Cluster) -> None:
    inside(kube, Containers())
    provider = kube.provider("pod")
    wanted = Spec(network=Network.NONE)
    with pytest.raises(Throttled, match="is probed first"):
        provider.offers(wanted)
    provider.probes.unit()  # waits for the one that was begun
    assert provider.offers(wanted)
    assert provider.holds_no_network


def test_a_probe_is_dropped_when_its_process_ends(
    kube: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pod stayed for five minutes, after a command that had waited for another provider."""
    kube.cloud.scheduler.on = False
    provider, waits = kube.provider("pod"), threading.Event()

    def sleep(_: float) -> None:
        waits.set()
        threading.Event().wait(0.01)

    monkeypatch.setattr(provider.probes, "_sleep", sleep)
    with pytest.raises(Throttled, match="is probed first"):
        provider.offers(Spec(network=Network.NONE))
    assert waits.wait(30)
    provider.probes.leave()
    assert kube.cloud.all(JOBS) == []
    assert kube.provider("pod").probes._latest("network") == UNKNOWN, "it shows nothing"


def test_a_probe_that_cannot_run_says_why(kube: Cluster) -> None:
    """A build is told, and waits for no verdict that may never come."""
    provider = kube.provider("pod")  # whose pods run nothing
    provider.probes.unit()
    with pytest.raises(NoCapacity, match="could not be probed: exec in a probe pod"):
        provider.offers(Spec(network=Network.NONE))


def test_a_wall_is_shown_by_who_passes_beside_it(kube: Cluster) -> None:
    """A pod that reaches nothing where nothing is to be reached shows no wall."""
    for number, (open_, free, words) in enumerate(
        (
            ("the internet", "", "one of network open reaches the internet"),
            ("", "the API server", "one without the label reaches the API server"),
            ("", "", "shows no wall"),
        )
    ):
        inside(kube, Containers(open_=open_, free=free))
        provider = kube.provider("pod", dns=(f"192.0.2.{number + 1}",))  # another class, as it were
        verdict = provider.probes.unit()["network"]
        assert words in verdict.words
        assert verdict.shown is bool(open_ or free)
        assert provider.holds_no_network is verdict.shown
    with pytest.raises(BadOrder, match="shows no wall"):
        provider.offers(Spec(network=Network.NONE))


def test_network_none_is_refused_where_no_policy_holds(kube: Cluster) -> None:
    inside(kube, Containers(reached="169.254.169.254, the internet"))
    provider = kube.provider("pod")
    provider.probes.unit()
    with pytest.raises(BadOrder, match=r"reaches 169\.254\.169\.254, the internet"):
        provider.offers(Spec(network=Network.NONE))
    order = dataclasses.replace(make_order(provider), network=Network.NONE)
    with pytest.raises(BadOrder):
        provider.create(order)
    never = kube.provider("pod", network_policy="never")
    with pytest.raises(BadOrder, match="never"):
        never.offers(Spec(network=Network.NONE))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"runs": "pod", "runtime_class": None}, "share the node's kernel"),
        ({"runs": "pod", "wall": "thin"}, "wall"),
        ({"namespace": "A"}, "namespace"),
        ({"sizes": ()}, "sizes"),
        ({"sizes": ("2",)}, "'2'"),
        ({"usd_hour": {"8x8GiB": 1.0}}, "8x8GiB"),
        ({"dns": ()}, "dns"),
        ({"dns": ("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4")}, "at most three"),
        ({"dns": ("9.9.9",)}, "'9.9.9'"),
        ({"image": {"volume": 1}}, "image"),
        ({"image": {"data_volume": {"claim": "a", "size": "big"}}}, "size"),
    ],
)
def test_wrong_options_are_refused_with_a_fix(
    kube: Cluster, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        kube.provider(**options)
    assert error.value.hint


def test_what_a_pod_cannot_keep_is_refused(kube: Cluster) -> None:
    provider = kube.provider("pod")
    for spec in (Spec(spot=True), Spec(image="x"), Spec(cpus=64), Spec(disk=1 << 50)):
        with pytest.raises(BadOrder) as error:
            provider.offers(spec)
        assert error.value.hint
    offers = kube.provider("pod", sizes=("2x4GiB", "4x8GiB"), usd_hour={"2x4GiB": 0.09}).offers
    assert [o.machine_type for o in offers(Spec(cpus=3))] == ["4x8GiB"]
    assert [o.usd_hour for o in offers(Spec())] == [0.09, 0.0]
