"""`deploy/kubernetes/`: accepted by schemas and by kubectl; and the role, with which a whole life
runs and which has no right to spare."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

import pytest
import yaml
from vmrunner_localclouds.kube import LocalKube
from vmrunner_localclouds.kube.kinds import (
    JOBS,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    RESOURCE_QUOTAS,
    ROLES,
    SECRETS,
    VMIS,
    VOLUME_CLAIMS,
)

from tests.support.kube_deploy import FILES, PLACE, VERSIONS, documents, kubectl, problems
from tests.support.kube_driver import Cluster, cluster, label_namespace, look, make_order, swept
from vmrunner.errors import QuotaExceeded, VmrunnerError
from vmrunner.lib import unit_recipe
from vmrunner.model import Fate, Finding, Key, Kind, Level, Network, Power, Ref
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.kubernetes import bodies
from vmrunner.providers.kubernetes.labels import NETWORK
from vmrunner.providers.kubernetes.permissions import OPTIONAL, needed
from vmrunner.providers.kubernetes.provider import KubernetesProvider
from vmrunner.providers.kubernetes.streams import ClusterChannel

VOLUME: Final = {"data_volume": {"claim": "vmrunner-image", "size": "40GiB"}}
#: Each way to run, as a configuration has it.
WAYS: Final[dict[str, dict[str, Any]]] = {
    "vmi": {"runs": "vmi"},
    "volume": {"runs": "vmi", "image": VOLUME},
    "probed": {"runs": "vmi", "unit_image": f"registry.example/unit@sha256:{'b' * 64}"},
    "pod": {"runs": "pod"},
}
#: Rights whose lack no call of a life meets: of one is asked by a newer API server than the local
#: one; without the others something is not told.
FOR_DOCTOR: Final = {"create virtualmachineinstances/portforward", *map(str, OPTIONAL)}


def rights() -> dict[str, tuple[int, str]]:
    """All single rights of the role, each with its rule and verb."""
    (role,) = documents("role")
    return {
        f"{verb} {rule['resources'][0]}": (at, verb)
        for at, rule in enumerate(role["rules"])
        for verb in rule["verbs"]
    }


@pytest.fixture
def kube() -> Iterator[Cluster]:
    with cluster(version="1.35") as made:
        made.cloud.programs = Unit()
        made.cloud.ports = answering
        yield made


class Unit:
    """What runs in a pod: programs of this host, as far as anybody asks for them."""

    def __call__(self, machine: Any, __: str, command: Sequence[str]) -> Any:
        label = machine.last["metadata"]["labels"].get("vmrunner/network")
        reached = "the internet" if label == "open" else ""
        answers = {"cat": unit_recipe.current(), "python3": f"reached: {reached}"}
        words = ["echo", answers[command[0]]] if command[0] in answers else ["echo", "vmrunner"]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe)


def answering(_: Any, __: int) -> socket.socket:
    """A port on which something speaks first, as sshd does."""
    near, far = socket.socketpair()
    with far:
        far.sendall(b"vmrunner\n")
    return near


def needs(kube: Cluster, way: str) -> set[str]:
    """The rights of one way to run, as the driver has them."""
    return {str(right) for right in needed(kube.provider(**WAYS[way]).options)}


def installed(
    kube: Cluster, without: str = "", only: AbstractSet[str] = frozenset()
) -> dict[str, Any]:
    """Options of somebody who has the account of `deploy/kubernetes/`. `without`: a right that is
    taken from its role; `only`: all that it has."""
    taken = (set(rights()) - only if only else set()) | ({without} if without else set())
    for name in FILES:
        for body in documents(name):
            if body["kind"] == "Role" and taken:
                for right in taken:
                    at, verb = rights()[right]
                    body["rules"][at]["verbs"].remove(verb)
                body["rules"] = [rule for rule in body["rules"] if rule["verbs"]]
            if body["kind"] == "Namespace":  # which is there
                label_namespace(kube.cloud, body["metadata"]["labels"])
            else:
                kind = kube.cloud.kind_of(body["apiVersion"], body["kind"])
                assert kind is not None
                kube.cloud.add_object(kind, body)
    config = kube.cache / "account"
    config.write_text(yaml.safe_dump(kube.cloud.config(kube.cloud.access.account(*ACCOUNT))))
    return {"kubeconfig": str(config)}


ACCOUNT: Final = ("vmrunner", "vmrunner")


def findings(provider: KubernetesProvider) -> list[Finding]:
    """What is wrong, but for the clock, which is a virtual one."""
    return [f for f in provider.check() if f.level is not Level.OK and f.check != "clock"]


def live(kube: Cluster, way: str, options: dict[str, Any]) -> None:
    """A whole life: birth twice (the second is an answer that was lost), look, entering, what it
    wrote, a lower deadline, a sweep, a delete, and the delete of what a dead one left."""
    provider = kube.provider(**(WAYS[way] | options))
    order, second = make_order(provider), make_order(provider)
    ref = provider.create(order)
    assert provider.create(order) == ref
    provider.create(second)
    seen = kube.wait(lambda: ready(provider, order))
    with ClusterChannel(lambda: provider).open(seen.address) as stream:
        stream.settimeout(30)
        assert stream.recv(8) == b"vmrunner"
    if provider.options.unit_image is not None:
        assert provider.probes.unit()["exec"].shown
    provider.console(ref)
    provider.lower(ref, provider.now() + 60)
    for page in provider.sweep():
        assert page.error is None, page
    refs = [resource.ref for page in provider.sweep() for resource in page.resources]
    outcomes = provider.delete(refs)
    assert all(outcome.fate is not Fate.FAILED for outcome in outcomes.values()), outcomes
    kube.wait(lambda: not kube.cloud.all(VMIS) and not kube.cloud.all(PODS))
    assert not kube.cloud.all(JOBS)
    assert not kube.cloud.all(SECRETS)


def ready(provider: KubernetesProvider, order: Any) -> Any:
    seen = look(provider, order)
    return seen if seen is not None and seen.power is Power.RUNNING and seen.address else None


def fails(kube: Cluster, options: dict[str, Any], *ways: str) -> list[str]:
    """The ways in which a life fails, by its error or by what it left. `ways`: of these alone."""
    failed = []
    for way in ways or WAYS:
        try:
            many(kube, way, options)
            live(kube, way, options)
        except (AssertionError, CallFailed, OSError, VmrunnerError) as error:
            failed.append(f"{way}: {error}")
    return failed


def of_former_ways(kube: Cluster) -> list[Ref]:
    """What former configurations left, one of each way."""
    refs = []
    for way in WAYS.values():
        provider = kube.provider(**way)
        refs.append(provider.create(make_order(provider)))
    return refs


def many(kube: Cluster, way: str, options: dict[str, Any]) -> None:
    """Look at more than are looked at one by one; then the collector is off, and each is ended by
    itself, be it of a former configuration."""
    provider = kube.provider(**(WAYS[way] | options))
    orders = [make_order(provider) for _ in range(4)]
    refs = [provider.create(order) for order in orders]
    kube.wait(lambda: all(ready(provider, order) for order in orders))
    keys = [
        Key(order.offer.scope, order.instance, ref.id)
        for order, ref in zip(orders, refs, strict=True)
    ]
    assert len(provider.look(keys)) == 4
    former = of_former_ways(kube)
    for ref in former:
        provider.lower(ref, provider.now() + 300)
    kube.cloud.garbage.on = False
    try:
        claims = [r.ref for r in swept(provider) if r.ref.kind is Kind.DISK]
        for _ in range(2):
            outcomes = provider.delete([*refs, *former, *claims], force=True)
            assert all(o.fate is not Fate.FAILED for o in outcomes.values()), outcomes
            kube.clock.advance(15)
        assert not any(kube.cloud.all(kind, "vmrunner") for kind in (PODS, VMIS, VOLUME_CLAIMS))
    finally:
        kube.cloud.garbage.on = True
        kube.clock.advance(700)


# --- the files ------------------------------------------------------------------------------------


def test_schemas_have_nothing_to_say() -> None:
    for body in [body for name in FILES for body in documents(name)]:
        for version in VERSIONS:
            assert problems(body, version) == [], body["kind"]
            assert problems(body | {"sepc": {}}, version), "a strict one"


def test_kubectl_applies_the_folder_at_once() -> None:
    """The namespace is made by its own file, which comes first."""
    with LocalKube() as cloud:
        cloud.delete(NAMESPACES, cloud.get(NAMESPACES, "vmrunner") or {})
        first = str(PLACE / "namespace.yaml")
        text = kubectl(cloud.kubeconfig, "apply", "-f", first, "-f", str(PLACE))
        assert "role.rbac.authorization.k8s.io/vmrunner created" in text
        again = kubectl(cloud.kubeconfig, "apply", "-f", str(PLACE))
        assert {line.split()[-1] for line in again.splitlines()} == {"unchanged"}
        made = {kind.plural: len(cloud.all(kind, "vmrunner")) for kind in (ROLES, RESOURCE_QUOTAS)}
        assert made == {"roles": 1, "resourcequotas": 1}
        assert len(cloud.all(NETWORK_POLICIES, "vmrunner")) == len(documents("network"))


def test_kubectl_lists_what_the_account_can_do(kube: Cluster) -> None:
    """In its own namespace, what the role says; anywhere else what everybody can."""
    config = kube.cache / "account"
    installed(kube)
    listed = kubectl(config, "auth", "can-i", "--list", "-n", "vmrunner")
    (role,) = documents("role")
    for rule in role["rules"]:
        (resource,), (group,) = rule["resources"], rule["apiGroups"]
        name, slash, part = resource.partition("/")
        full = f"{name}.{group}" if group else name
        line = next(line for line in listed.splitlines() if line.split()[0] == full + slash + part)
        assert line.endswith(f"[{' '.join(rule['verbs'])}]"), line
    elsewhere = kubectl(config, "auth", "can-i", "--list", "-n", "default")
    assert "jobs" not in elsewhere
    assert "secrets" not in elsewhere


# --- rights ---------------------------------------------------------------------------------------


def test_the_role_is_of_one_namespace_and_names_no_wildcard() -> None:
    for body in documents("role") + documents("account"):
        assert body["kind"] in ("Role", "RoleBinding", "ServiceAccount")
        assert body["metadata"]["namespace"] == "vmrunner"
        assert "*" not in json.dumps(body)


def test_the_role_is_what_the_driver_asks_for(kube: Cluster) -> None:
    wanted = set[str]().union(*(needs(kube, way) for way in WAYS))
    assert wanted | set(map(str, OPTIONAL)) == set(rights())


def test_the_page_names_the_roles_rights() -> None:
    page = (PLACE.parents[1] / "docs/kubernetes.md").read_text()
    table = page.partition("| resource | verbs | for |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([a-z/]+)`[^|]*\| ([a-z ]+) \|", table, re.MULTILINE)
    named = [f"{verb} {resource}" for resource, verbs in rows for verb in verbs.split()]
    assert sorted(named) == sorted(rights())


def test_doctor_reviews_the_roles_rights_and_no_others(kube: Cluster) -> None:
    options = installed(kube)
    for way in WAYS.values():
        kube.provider(**(way | options)).check()
    reviews = (
        request.document["spec"]["resourceAttributes"]
        for request in kube.cloud.requests
        if request.resource == "selfsubjectaccessreviews"
    )
    names = {
        f"{review['verb']} {review['resource']}/{review.get('subresource', '')}".rstrip("/")
        for review in reviews
    }
    assert names == set(rights())


@pytest.mark.parametrize("way", sorted(WAYS))
def test_each_way_runs_with_its_own_rights_alone(kube: Cluster, way: str) -> None:
    options = installed(kube, only=needs(kube, way))
    assert fails(kube, options, way) == []
    found = findings(kube.provider(**(WAYS[way] | options)))
    assert [each.message for each in found if "denied" in each.message] == [
        "denied: list resourcequotas: a quota that is used up is not told",
        "denied: list events: why a node does not start a pod is not told",
    ]


@pytest.mark.parametrize("way", sorted(WAYS))
def test_no_way_runs_without_any_of_its_rights(way: str) -> None:
    """Of each, by its own life, or by that of what a former configuration left."""
    with cluster(version="1.35") as kube:
        wanted = needs(kube, way)
    for right in sorted(wanted - FOR_DOCTOR):
        with cluster(version="1.35") as kube:
            kube.cloud.programs = Unit()
            kube.cloud.ports = answering
            options = installed(kube, without=right, only=wanted)
            assert fails(kube, options, way), f"{way} runs without: {right}"


def test_doctor_finds_nothing_with_the_role(kube: Cluster) -> None:
    options = installed(kube)
    for way in WAYS.values():
        provider = kube.provider(**(way | options | {"unit_image": _UNIT}))
        assert findings(provider) == []


def test_a_whole_life_runs_with_the_role(kube: Cluster) -> None:
    assert fails(kube, installed(kube)) == []
    assert not [refused for refused in kube.cloud.rejected if "forbidden" in refused]


@pytest.mark.parametrize("right", sorted(set(rights()) - FOR_DOCTOR))
def test_no_life_runs_without_any_one_right(kube: Cluster, right: str) -> None:
    assert fails(kube, installed(kube, without=right))


@pytest.mark.parametrize("right", sorted(FOR_DOCTOR))
def test_what_only_doctor_misses_is_missed(kube: Cluster, right: str) -> None:
    options = installed(kube, without=right)
    provider = kube.provider(**options)
    if right == "list resourcequotas":
        full = {"metadata": {"name": "full"}, "spec": {"hard": {"count/secrets": "1"}}}
        kube.cloud.add_object(RESOURCE_QUOTAS, full)
        kube.cloud.add_object(SECRETS, {"metadata": {"name": "one"}})
        kube.clock.advance(1)
        allowed = kube.provider()  # an administrator's
        assert "quota" in {finding.check for finding in findings(allowed)}
        assert "quota" not in {finding.check for finding in findings(provider)}
    else:
        assert any(right in finding.message for finding in findings(provider))


_UNIT: Final = f"registry.example/unit@sha256:{'b' * 64}"


# --- network --------------------------------------------------------------------------------------


def policies() -> dict[str, Any]:
    return {body["metadata"]["name"]: body["spec"] for body in documents("network")}


def selects(spec: Any, labels: dict[str, str]) -> bool:
    selector = spec["podSelector"]
    exact = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in exact.items()) and all(
        each["operator"] == "Exists" and each["key"] in labels
        for each in selector.get("matchExpressions") or ()
    )


def reaches(labels: dict[str, str], address: str) -> bool:
    """True if a pod with these labels gets out to an address, as the policies say."""
    target = ipaddress.ip_address(address)
    for spec in policies().values():
        if not selects(spec, labels) or "Egress" not in spec["policyTypes"]:
            continue
        for rule in spec.get("egress") or ():
            for block in (peer["ipBlock"] for peer in rule["to"]):
                inside = target in ipaddress.ip_network(block["cidr"])
                out = (ipaddress.ip_network(each) for each in block.get("except") or ())
                if inside and not any(target in network for network in out):
                    return True
    return False


@pytest.mark.parametrize("network", ["open", "none"])
def test_builds_reach_the_internet_and_nothing_private(network: str) -> None:
    labels = {NETWORK: network}
    for address in ("1.1.1.1", "9.9.9.9", "2620:fe::fe"):
        assert reaches(labels, address) is (network == "open")
    for address in (
        *("10.96.0.1", "172.20.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254"),
        *("127.0.0.1", "224.0.0.1", "168.63.129.16", "fd00::1", "fe80::1", "::1"),
        *("64:ff9b::a60:1", "::ffff:10.0.0.1", "ff02::1"),
    ):
        assert not reaches(labels, address), address


def test_every_pod_is_closed_and_only_vms_let_ssh_in() -> None:
    for network in ("open", "none"):
        chosen = [spec for spec in policies().values() if selects(spec, {NETWORK: network})]
        assert any("Ingress" in spec["policyTypes"] for spec in chosen)
        assert not any(spec.get("ingress") for spec in chosen)
        labels = {NETWORK: network, "kubevirt.io": "virt-launcher"}
        chosen = [spec for spec in policies().values() if selects(spec, labels)]
        entries = [entry for spec in chosen for entry in spec.get("ingress", ())]
        assert [entry["ports"] for entry in entries] == [[{"protocol": "TCP", "port": 22}]]
        assert list(entries[0]["from"][0]) == ["namespaceSelector"]


def test_the_label_has_no_third_value() -> None:
    selectors = [spec["podSelector"].get("matchLabels", {}) for spec in policies().values()]
    values = {selector.get(NETWORK) for selector in selectors}
    assert values - {None} == {"open", "none"}
    assert {bodies.network_label(network) for network in Network} <= values


def test_the_quota_takes_twenty_builds_and_refuses_one_more(kube: Cluster) -> None:
    options = installed(kube)
    provider = kube.provider("pod", **options)
    for _ in range(20):  # as the file says
        provider.create(make_order(provider))
    with pytest.raises(QuotaExceeded, match=r"requests\.cpu"):
        provider.create(make_order(provider))
