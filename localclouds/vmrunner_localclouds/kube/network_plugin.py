"""The network plugin: it walls real pods in by the network policies that select them
(https://kubernetes.io/docs/concepts/services-networking/network-policies/, read 2026-12-01).

A pod that no policy selects is reached by all and reaches all. One that a policy selects, by that
policy's types, has what its policies allow together, and answers to that; a connection needs to be
allowed at both its ends. The node reaches its own pods always. What a policy's change means for
connections that are open already is left to plugins: here they go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.kube import selectors
from vmrunner_localclouds.kube.api_error import Json
from vmrunner_localclouds.kube.controllers import Controller
from vmrunner_localclouds.kube.kinds import NAMESPACES, NETWORK_POLICIES, PODS
from vmrunner_localclouds.pods.walls import Passage, Wall

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube
    from vmrunner_localclouds.kube.store import Change

_OVER: Final = ("Succeeded", "Failed")


class NetworkPlugin(Controller):
    """`on` False: one that takes policies and does nothing, as some do."""

    def __init__(self, cloud: LocalKube) -> None:
        super().__init__(cloud)
        self._walls: Mapping[str, Wall] = {}

    def _changed(self, change: Change) -> None:
        if change.kind in (PODS, NETWORK_POLICIES, NAMESPACES) and self._cloud.containers:
            self.soon(self._renew)

    def _renew(self) -> None:
        store = self._cloud.store
        found = walls(store.all(PODS), store.all(NETWORK_POLICIES), store.all(NAMESPACES))
        if found != self._walls and self._cloud.containers is not None:
            self._cloud.containers.wall_in(found)
            self._walls = found


def walls(
    pods: Sequence[Json], policies: Sequence[Json], namespaces: Sequence[Json]
) -> dict[str, Wall]:
    """The walls of all pods that have an address, by that."""
    here = {_address(pod): pod for pod in pods if _address(pod)}
    found = {}
    for address, pod in here.items():
        its = [
            policy["spec"]
            for policy in policies
            if policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
            and selectors.of_policy(policy["spec"].get("podSelector") or {})(pod)
        ]
        place = pod["metadata"]["namespace"]
        peers = _Peers(here, namespaces, place)
        wall = Wall(
            leaving=_passages(its, "Egress", "egress", "to", peers),
            entering=_passages(its, "Ingress", "ingress", "from", peers),
        )
        if wall != Wall():
            found[address] = wall
    return found


def _address(pod: Json) -> str:
    status = pod.get("status") or {}
    return "" if status.get("phase") in _OVER else str(status.get("podIP") or "")


def _passages(
    specs: Sequence[Json], kind: str, rules: str, peer: str, peers: _Peers
) -> list[Passage] | None:
    """Passages that policies of a kind allow together; None: none is of it."""
    isolating = [spec for spec in specs if kind in _types(spec)]
    if not isolating:
        return None
    return [
        Passage(
            peers.ranges(rule[peer]) if rule.get(peer) else None,
            [_port(port) for port in rule["ports"]] if rule.get("ports") else None,
        )
        for spec in isolating
        for rule in spec.get(rules) or ()
    ]


def _types(spec: Json) -> Sequence[str]:
    """The kinds of a policy: by default Ingress always, and Egress where a rule for it is."""
    default = ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return spec.get("policyTypes") or default


def _port(port: Json) -> tuple[str, int, int]:
    first = port.get("port", 0)
    if not isinstance(first, int):
        raise TypeError(f"port {first!r}: names of ports are not known here")
    return port.get("protocol") or "TCP", first, port.get("endPort") or first or 65535


class _Peers:
    """Pods and ranges that a policy of one namespace can mean."""

    def __init__(
        self, pods: Mapping[str, Json], namespaces: Sequence[Json], namespace: str
    ) -> None:
        self._pods = pods
        self._namespaces = namespaces
        self._own = namespace

    def ranges(self, peers: Sequence[Json]) -> list[tuple[str, list[str]]]:
        return [found for peer in peers for found in self._of(peer)]

    def _of(self, peer: Json) -> Iterator[tuple[str, list[str]]]:
        if (block := peer.get("ipBlock")) is not None:
            yield block["cidr"], list(block.get("except") or ())
            return
        namespaces = {self._own}
        if (selector := peer.get("namespaceSelector")) is not None:
            match = selectors.of_policy(selector)
            namespaces = {each["metadata"]["name"] for each in self._namespaces if match(each)}
        match = selectors.of_policy(peer.get("podSelector") or {})
        for address, pod in self._pods.items():
            if pod["metadata"]["namespace"] in namespaces and match(pod):
                yield f"{address}/32", []
