"""Network policies, as their page has them
(https://kubernetes.io/docs/concepts/services-networking/network-policies/, read 2026-12-01): what
they say of each pod, and that it holds for what runs in one."""

from __future__ import annotations

from typing import Any

import pytest
from vmrunner_localclouds.kube.network_plugin import walls
from vmrunner_localclouds.pods.walls import Passage, Wall, ruleset

ALL = Passage()
A, B, C = "10.88.0.2", "10.88.0.3", "10.88.0.4"


def pod(address: str, namespace: str = "here", phase: str = "Running", **labels: str) -> Any:
    meta = {"name": address, "namespace": namespace, "labels": labels}
    return {"metadata": meta, "status": {"podIP": address, "phase": phase}}


def policy(namespace: str = "here", **spec: Any) -> Any:
    return {"metadata": {"namespace": namespace, "name": "p"}, "spec": {"podSelector": {}} | spec}


SPACES = [
    {"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}}
    for name in ("here", "there")
]
PODS = [pod(A, role="a"), pod(B, role="b"), pod(C, "there", role="a")]


def found(*policies: Any, pods: Any = PODS) -> dict[str, Wall]:
    return walls(pods, policies, SPACES)


def test_a_pod_that_no_policy_selects_has_no_wall() -> None:
    """ "By default, a pod is non-isolated for egress; all outbound connections are allowed." """
    assert found() == {}
    assert set(found(policy(podSelector={"matchLabels": {"role": "a"}}))) == {A}
    assert set(found(policy("there"))) == {C}


def test_a_policy_isolates_for_its_types_alone() -> None:
    """ "If no policyTypes are specified … then by default Ingress will always be set and Egress
    will be set if the NetworkPolicy has any egress rules." """
    assert found(policy())[A] == Wall(entering=[])
    assert found(policy(egress=[{}]))[A] == Wall(leaving=[ALL], entering=[])
    assert found(policy(policyTypes=["Egress"]))[A] == Wall(leaving=[])


def test_policies_add_to_one_another() -> None:
    """ "Network policies do not conflict; they are additive." """
    deny = policy(policyTypes=["Egress"])
    allow = policy(policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "9.9.9.9/32"}}]}])
    nine = Passage([("9.9.9.9/32", [])])
    assert found(deny, allow)[A] == Wall(leaving=[nine])


@pytest.mark.parametrize(
    ("peer", "ranges"),
    [
        ({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}, [("0.0.0.0/0", "10")]),
        ({"podSelector": {"matchLabels": {"role": "a"}}}, [(f"{A}/32", "")]),
        ({"podSelector": {}}, [(f"{A}/32", ""), (f"{B}/32", "")]),
        ({"namespaceSelector": {}}, [(f"{each}/32", "") for each in (A, B, C)]),
        (
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "there"}},
                "podSelector": {"matchLabels": {"role": "b"}},
            },
            [],
        ),
    ],
    ids=["block", "pods", "all pods", "all namespaces", "both"],
)
def test_a_peer_is_a_block_or_pods(peer: Any, ranges: Any) -> None:
    """ "A single to/from entry that specifies both namespaceSelector and podSelector selects
    particular Pods within particular namespaces." """
    wall = found(policy(policyTypes=["Ingress"], ingress=[{"from": [peer]}]))[B]
    assert wall.entering is not None
    (passage,) = wall.entering
    assert passage.peers is not None
    assert [(block, "10" if but else "") for block, but in passage.peers] == ranges


def test_ports_are_of_a_protocol_and_may_be_a_range() -> None:
    """ "The endPort field must be equal to or greater than the port field." """
    ports = [{"port": 53, "protocol": "UDP"}, {"port": 8000, "endPort": 8080}, {"protocol": "TCP"}]
    wall = found(policy(policyTypes=["Egress"], egress=[{"ports": ports}]))[A]
    wanted = [("UDP", 53, 53), ("TCP", 8000, 8080), ("TCP", 0, 65535)]
    assert wall.leaving == [Passage(None, wanted)]


def test_a_pod_that_has_ended_is_no_peer() -> None:
    pods = [pod(A), pod(B, phase="Succeeded")]
    wall = found(policy(ingress=[{"from": [{"podSelector": {}}]}]), pods=pods)
    assert set(wall) == {A}
    assert wall[A].entering == [Passage([(f"{A}/32", [])])]


def test_a_wall_drops_what_no_passage_lets_through() -> None:
    open_ = Passage([("0.0.0.0/0", ["10.0.0.0/8"]), ("2000::/3", [])], [("TCP", 443, 443)])
    rules = ruleset({"veth2": Wall(leaving=[open_], entering=[])})
    assert "chain enter_veth2 { drop; }" in rules
    assert "ip daddr != { 10.0.0.0/8 } tcp dport 443-443 return" in rules
    assert "ip6 daddr 2000::/3 tcp dport 443-443 return; drop" in rules
    assert rules.count("iifname veth2 jump leave_veth2") == 2  # to the node, and past it
