"""Network policies of `deploy/kubernetes/` around real pods: a wall for whoever is root in one, and
nothing where the cluster's plugin ignores policies, which the probe notices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from vmrunner_localclouds.kube import KubeMachine, LocalKube
from vmrunner_localclouds.kube.kinds import NETWORK_POLICIES, PODS
from vmrunner_localclouds.pods import Pods
from vmrunner_localclouds.pods.neighbours import ADDRESSES

from tests.support.kube_builds import run
from tests.support.kube_deploy import documents
from tests.support.loopback_registry import SHELL, LoopbackRegistry, archive, programs
from tests.support.sshd import wait_for
from tests.support.unit_pods import unit_image

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
API, DNS, METADATA, INTERNET, RESOLVER = ADDRESSES
#: Another build's pod, on its node.
OTHER = "10.88.0.2"
#: All that root in a build can try: each of the world, the node, a neighbour; over TCP and UDP; and
#: to take the wall away, or go around it.
HOSTILE = f"""
for to in {API}/443 {DNS}/53 {METADATA}/80 {INTERNET}/443 {RESOLVER}/53 10.88.0.1/443 {OTHER}/8000
do timeout 3 bash -c ": <>/dev/tcp/$to" 2>/dev/null && echo "reached $to" & done
wait
ip link add name way type dummy 2>/dev/null && echo "made a link"
ip addr add 10.88.0.77/32 dev eth0 2>/dev/null && echo "took an address"
nft delete table inet walls 2>/dev/null && echo "took the wall away"
nsenter --net=/proc/1/ns/net true 2>/dev/null && echo "entered a network"
echo tried all
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The unit image, and a build's."""
    home = tmp_path_factory.mktemp("registry")
    with LoopbackRegistry(home) as registry:
        names = [*SHELL.split(), "bash", "gzip", "ip", "nsenter", "nft"]
        build = registry.push("build:1", archive(home / "b.tar", [programs(names)]))
        yield unit_image(registry, home), build


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalKube]:
    with Pods(tmp_path / "pods") as pods, LocalKube(pods=pods) as cloud:
        for body in documents("network"):
            kind = cloud.kind_of(body["apiVersion"], body["kind"])
            assert kind is not None
            cloud.add_object(kind, body)
        yield cloud
        assert not cloud.rejected


def listener(cluster: LocalKube, unit: str, name: str, **labels: str) -> KubeMachine:
    """A pod on whose port 8000 somebody listens."""
    listen = "import socket as s; c = s.create_server(('', 8000));\nwhile 1: c.accept()"
    container = {"name": "c", "image": unit, "command": ["python3", "-c", listen]}
    spec = {"containers": [container], "restartPolicy": "Never"}
    cluster.add_object(PODS, {"metadata": {"name": name, "labels": labels}, "spec": spec})
    machine = cluster.machines[-1]
    wait_for(lambda: answers(machine))
    return machine


def answers(machine: KubeMachine) -> bool:
    """The node reaches its pods always."""
    try:
        machine.running.dial(8000).close()
    except OSError:
        return False
    return True


def reached(machine: KubeMachine, address: str) -> bool:
    """True if a pod reaches the port 8000 of another."""
    script = f"import socket as s; s.create_connection(('{address}', 8000), 3)"
    execution = machine.running.exec("c", ["python3", "-c", script])
    try:
        return bool(execution.wait() == 0)
    finally:
        execution.close()


@pytest.mark.parametrize("runtime", ["runc", "gvisor"])
def test_policies_wall_root_in_a_pod_in(
    tmp_path: Path, cluster: LocalKube, images: tuple[str, str], runtime: str
) -> None:
    """Of network none it reaches nothing; of network open the internet alone."""
    unit, image = images
    assert listener(cluster, unit, "other").status["podIP"] == OTHER
    tried = {}
    for network in ("none", "open"):
        words = ("--network", network, "--container", image, "--", "sh", "-c", HOSTILE)
        done = run(tmp_path, cluster, unit, runtime, *words)
        assert done.returncode == 0, done.stderr
        tried[network] = sorted(done.stdout.splitlines())
    assert tried["none"] == ["tried all"]
    assert tried["open"] == [f"reached {INTERNET}/443", f"reached {RESOLVER}/53", "tried all"]


def test_a_cluster_that_ignores_policies_is_noticed(
    tmp_path: Path, cluster: LocalKube, images: tuple[str, str]
) -> None:
    unit, image = images
    cluster.network.on = False
    words = ("--network", "none", "--container", image, "--", "sh", "-c", HOSTILE)
    done = run(tmp_path, cluster, unit, "runc", *words)
    assert done.returncode != 0
    assert "a pod of network none reaches 169.254.169.254, the API server" in done.stderr
    assert "tried all" not in done.stdout


def test_nobody_gets_into_a_pod(cluster: LocalKube, images: tuple[str, str]) -> None:
    """Not even its neighbour of the same kind; its node does."""
    build = listener(cluster, images[0], "build", **{"vmrunner/network": "open"})
    stranger = listener(cluster, images[0], "stranger")
    assert not reached(stranger, build.status["podIP"])
    for policy in cluster.all(NETWORK_POLICIES):
        cluster.delete(NETWORK_POLICIES, policy)
    assert reached(stranger, build.status["podIP"])
