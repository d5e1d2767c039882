"""What a cluster's admission does to builds: Pod Security and LimitRanges. Their rules and words
are judged by the vendor's pages in `localclouds/tests/test_localkube_security.py` and
`localclouds/tests/test_localkube_limit_ranges.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from vmrunner_localclouds.kube import LocalKube
from vmrunner_localclouds.kube.kinds import JOBS, LIMIT_RANGES, PODS, SECRETS, VMIS
from vmrunner_localclouds.kube.pod_security import Policy, violations

from tests.support.kube_builds import run
from tests.support.kube_deploy import documents
from tests.support.kube_driver import IMAGE, Cluster, cluster, label_namespace, look, make_order
from tests.support.sshd import wait_for
from vmrunner.errors import BadOrder
from vmrunner.lib import resources
from vmrunner.model import Level, Power, Reason
from vmrunner.providers.kubernetes import bodies

LABEL: Final = "pod-security.kubernetes.io/enforce"
RESTRICTED: Final = {LABEL: "restricted"}


@pytest.fixture
def kube() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


def nothing_is_left(cloud: LocalKube) -> bool:
    return not any(cloud.all(kind, "vmrunner") for kind in (JOBS, SECRETS, PODS, VMIS))


def level() -> str:
    """The level that deploy/kubernetes sets."""
    (namespace,) = documents("namespace")
    return str(namespace["metadata"]["labels"][LABEL])


@pytest.mark.parametrize("runs", ["vmi", "pod"])
def test_builds_pass_the_level_that_is_enforced(kube: Cluster, runs: str) -> None:
    kube.label(enforce=level())
    provider = kube.provider(runs)
    order = make_order(provider)
    provider.create(order)
    kube.wait(lambda: (seen := look(provider, order)) and seen.power is Power.RUNNING)
    page = (resources.path("docs") / "kubernetes.md").read_text()
    assert f"`namespace.yaml` enforces `{level()}`" in page


def test_probes_pass_the_level_that_is_enforced(kube: Cluster) -> None:
    kube.label(enforce=level())
    provider = kube.provider("pod")
    verdicts = [*provider.probes.unit().values(), provider.probes.controllers()]
    assert kube.cloud.count("pods.create") >= 1
    assert not [verdict for verdict in verdicts if "PodSecurity" in verdict.words]


def test_the_deadlines_job_warns_nobody() -> None:
    """Though no pod is ever made of it: policy engines judge its template too."""
    template = bodies.timer({"name": "vm-1"}, 60)["spec"]["template"]["spec"]
    assert violations(Policy("restricted", "latest"), 37, {}, template) == ""


def test_a_refused_pod_is_told_and_leaves_nothing(kube: Cluster) -> None:
    kube.label(enforce="restricted")
    provider = kube.provider("pod")
    with pytest.raises(BadOrder, match=r'violates PodSecurity "restricted:latest": ') as error:
        provider.create(make_order(provider))
    assert "baseline" in error.value.hint
    assert nothing_is_left(kube.cloud)


def test_a_vm_whose_launcher_is_refused_is_told_at_once(kube: Cluster) -> None:
    """The VM is taken and its pod is not: an event, and a condition of the VM, tell of that."""
    kube.label(enforce="restricted")
    provider = kube.provider("vmi")
    order = make_order(provider)
    ref = provider.create(order)
    seen = look(provider, order, ref)
    assert seen is not None
    assert (seen.power, seen.unfit) == (Power.PENDING, Reason.IMAGE)
    assert 'violates PodSecurity "restricted:latest": seccompProfile' in seen.detail
    assert "launchers that are root" in seen.detail
    provider.delete([ref])
    kube.wait(lambda: nothing_is_left(kube.cloud))


@pytest.mark.parametrize("runs", ["vmi", "pod"])
def test_a_refused_build_ends_and_leaves_nothing(tmp_path: Path, runs: str) -> None:
    with LocalKube() as cloud:
        label_namespace(cloud, RESTRICTED)
        words: tuple[Any, ...] = ("--container", "debian:13", "--", "true")
        done = run(tmp_path, cloud, IMAGE, "gvisor", *words, runs=runs)
        print(done.stdout, done.stderr)
        assert done.returncode not in (0, 1)
        assert re.search(r'violates PodSecurity "restricted:latest"', done.stderr)
        assert "baseline" in done.stderr
        wait_for(lambda: nothing_is_left(cloud))


# --- LimitRanges ----------------------------------------------------------------------------------


def limit(kube: Cluster, **item: Any) -> None:
    """Give the namespace a LimitRange for containers."""
    spec = {"limits": [{"type": "Container", **item}]}
    kube.cloud.add_object(LIMIT_RANGES, {"metadata": {"name": "l"}, "spec": spec})


#: A LimitRange of containers, and the words of a unit that it refuses.
REFUSES: Final[tuple[tuple[dict[str, Any], str], ...]] = (
    ({"max": {"cpu": "1"}}, "maximum cpu usage per Container is 1, but limit is 2"),
    ({"min": {"memory": "1Gi"}}, "minimum memory usage per Container is 1Gi, but request is"),
    ({"maxLimitRequestRatio": {"cpu": "2"}}, "cpu max limit to request ratio per Container is 2"),
    ({"default": {"cpu": "50m"}, "min": {"cpu": "1m"}}, "less than or equal to cpu limit of 50m"),
)


@pytest.mark.parametrize(("item", "words"), REFUSES, ids=["max", "min", "ratio", "default"])
def test_a_unit_out_of_range_is_told(kube: Cluster, item: dict[str, Any], words: str) -> None:
    limit(kube, **item)
    provider = kube.provider("pod")
    with pytest.raises(BadOrder, match=words) as error:
        provider.create(make_order(provider))
    assert "LimitRange" in error.value.hint
    assert nothing_is_left(kube.cloud)
    found = next(f for f in provider.check() if f.check == "cluster" and f.level is Level.ERROR)
    assert words in found.message
    assert "LimitRange" in found.fix


def test_what_a_range_fills_in_hinders_no_unit(kube: Cluster) -> None:
    """`vmrunner`'s container names no limit of CPUs: it gets the default, and the same order sent
    again is the same pod."""
    limit(kube, default={"cpu": "500m"}, min={"cpu": "10m", "memory": "16Mi"}, max={"cpu": "8"})
    provider = kube.provider("pod")
    order = make_order(provider)
    ref = provider.create(order)
    (pod,) = kube.cloud.all(PODS)
    (ours,) = [each for each in pod["spec"]["containers"] if each["name"] == "vmrunner"]
    assert ours["resources"]["limits"]["cpu"] == "500m"
    kube.wait(lambda: (seen := look(provider, order, ref)) and seen.power is Power.RUNNING)
    assert provider.create(order) == ref


def test_a_range_that_came_later_refuses_nothing_born(kube: Cluster) -> None:
    """Admission comes before the name is looked for: an order that is sent again is refused."""
    provider = kube.provider("pod")
    order = make_order(provider)
    ref = provider.create(order)
    limit(kube, max={"cpu": "1"})
    assert provider.create(order) == ref
    assert kube.cloud.all(PODS)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"max": {"cpu": "1"}}, "must be less than or equal to cpu limit of 1"),
        ({"min": {"cpu": "4"}}, "minimum cpu usage per Container is 4, but request is 2"),
    ],
    ids=["max", "min"],
)
def test_a_launcher_out_of_range_is_told(kube: Cluster, item: dict[str, Any], words: str) -> None:
    limit(kube, **item)
    provider = kube.provider("vmi")
    order = make_order(provider)
    ref = provider.create(order)
    seen = look(provider, order, ref)
    assert seen is not None
    assert (seen.power, seen.unfit) == (Power.PENDING, Reason.IMAGE)
    assert words in seen.detail
    assert "LimitRange" in seen.detail
    provider.delete([ref])
    kube.wait(lambda: nothing_is_left(kube.cloud))


def test_the_page_says_what_our_containers_ask_for(kube: Cluster) -> None:
    provider = kube.provider("pod")
    provider.create(make_order(provider))
    (pod,) = kube.cloud.all(PODS)
    (lay,) = pod["spec"]["initContainers"]
    ours = next(each for each in pod["spec"]["containers"] if each["name"] == "vmrunner")
    page = (resources.path("docs") / "kubernetes.md").read_text()

    def words(part: dict[str, Any], field: str) -> str:
        return " and ".join(part["resources"][field].values())

    most = words(lay, "limits").replace(" and", " CPU and")
    assert f"`lay` {words(lay, 'requests')}, at most {most}" in page
    assert f"`vmrunner` {words(ours, 'requests')}, at most {words(ours, 'limits')} or more" in page
