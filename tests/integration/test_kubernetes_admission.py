"""What a cluster's admission does to builds: Pod Security. Its rules and words are judged in
`localclouds/tests/test_localkube_security.py`, by the vendor's pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from vmrunner_localclouds.kube import LocalKube
from vmrunner_localclouds.kube.kinds import JOBS, PODS, SECRETS, VMIS
from vmrunner_localclouds.kube.pod_security import Policy, violations

from tests.support.kube_builds import run
from tests.support.kube_deploy import documents
from tests.support.kube_driver import IMAGE, Cluster, cluster, label_namespace, look, make_order
from tests.support.sshd import wait_for
from vmrunner.errors import BadOrder
from vmrunner.lib import resources
from vmrunner.model import Power, Reason
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
