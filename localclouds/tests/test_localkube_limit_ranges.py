"""LimitRanges in the local Kubernetes. The rules are those of
https://kubernetes.io/docs/concepts/policy/limit-range/ (read 2026-12-03), the words those of
kubernetes 1.34's plugin/pkg/admission/limitranger/admission.go, pkg/apis/core/v1/defaults.go
`SetDefaults_LimitRangeItem` and pkg/apis/core/validation/validation.go."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.support.kube import KubeApi, pod, vmi
from tests.support.kube import kube as kube  # the fixture

JSON = dict[str, Any]


def limits(kube: KubeApi, name: str = "l", kind: str = "Container", **item: Any) -> Any:
    """Make a LimitRange with one item."""
    body = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": name}}
    return kube.create(body | {"spec": {"limits": [{"type": kind, **item}]}})


def container(name: str = "a", **resources: Any) -> JSON:
    return {"name": name, "image": "debian:13", "resources": resources}


def filled(kube: KubeApi, *containers: JSON, **spec: Any) -> list[JSON]:
    """The resources of a pod's containers as the API keeps them."""
    made = kube.create(pod(containers=list(containers), **spec))
    assert made.status == 201, made.body
    kept = made.body["spec"]
    return [each["resources"] for each in (*kept["containers"], *kept.get("initContainers", ()))]


def refused(kube: KubeApi, *containers: JSON, **spec: Any) -> str:
    answer = kube.create(pod(containers=list(containers), **spec))
    assert (answer.status, answer.reason) == (403, "Forbidden"), answer.body
    assert answer.body["details"] == {"name": "vm-1", "kind": "pods"}
    head = 'pods "vm-1" is forbidden: '
    assert answer.message.startswith(head)
    return answer.message.removeprefix(head)


def test_what_a_container_leaves_out_is_filled_in(kube: KubeApi) -> None:
    """The default limit, and the default request, each where none is given; init containers too."""
    limits(kube, default={"memory": "512Mi"}, defaultRequest={"memory": "256Mi"})
    own = container("c", limits={"memory": "1Gi"})
    asks = container("b", requests={"memory": "128Mi"})
    found = filled(kube, container(), asks, own, initContainers=[container("i")])
    both = {"requests": {"memory": "256Mi"}, "limits": {"memory": "512Mi"}}
    of_asks = {"requests": {"memory": "128Mi"}, "limits": {"memory": "512Mi"}}
    of_own = {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}}
    assert found == [both, of_asks, of_own, both]
    notes = kube.get("pods", "vm-1").body["metadata"]["annotations"]
    assert notes["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: memory request for container a; memory limit for container a; "
        "memory limit for container b; memory request for init container i; memory limit for init "
        "container i"
    )
    assert kube.get("pods", "vm-1").body["status"]["qosClass"] == "Burstable"


def test_defaults_of_a_range_are_its_bounds(kube: KubeApi) -> None:
    """The limit is the most, the request is that limit; without both the request is the least."""
    made = limits(kube, max={"cpu": "2"}, min={"cpu": "100m", "memory": "4Mi"})
    (item,) = made.body["spec"]["limits"]
    assert item["default"] == {"cpu": "2"}
    assert item["defaultRequest"] == {"cpu": "2", "memory": "4Mi"}
    (found,) = filled(kube, container())
    assert found == {"limits": {"cpu": "2"}, "requests": {"cpu": "2", "memory": "4Mi"}}


@pytest.mark.parametrize(
    ("item", "resources", "words"),
    [
        (
            {"min": {"cpu": "200m"}},
            {"requests": {"cpu": "100m"}},
            "minimum cpu usage per Container is 200m, but request is 100m",
        ),
        (
            {"min": {"memory": "1Gi"}},
            {"limits": {"memory": "512Mi"}},
            "minimum memory usage per Container is 1Gi, but request is 512Mi",
        ),
        (
            {"max": {"memory": "1Gi"}},
            {"limits": {"memory": "1536Mi"}},
            "maximum memory usage per Container is 1Gi, but limit is 1536Mi",
        ),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}},
            "cpu max limit to request ratio per Container is 2, but provided ratio is 10.000000",
        ),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            {"requests": {"cpu": "100m"}},
            "cpu max limit to request ratio per Container is 2, but no limit is specified or limit "
            "is 0",
        ),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            {},
            "cpu max limit to request ratio per Container is 2, but no request is specified or "
            "request is 0",
        ),
    ],
    ids=["min", "limit below min", "max", "ratio", "no limit", "no request"],
)
def test_what_is_out_of_range_is_refused(
    kube: KubeApi, item: JSON, resources: JSON, words: str
) -> None:
    assert limits(kube, **item).status == 201
    assert refused(kube, container(**resources)) == words


def test_each_container_and_bound_is_told(kube: KubeApi) -> None:
    """`NewAggregate`: in brackets where there are several, none twice."""
    limits(kube, min={"cpu": "200m"}, max={"memory": "1Gi"})
    small = {"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "2Gi"}}
    first = "minimum cpu usage per Container is 200m, but request is 100m"
    second = "maximum memory usage per Container is 1Gi, but limit is 2Gi"
    both = f"[{first}, {second}]"
    assert refused(kube, container(**small), container("b", **small)) == both
    init = [container("i", **small)]
    sound = {"limits": {"cpu": "1", "memory": "1Gi"}}
    assert refused(kube, container(**sound), initContainers=init) == both


def test_a_default_below_a_request_makes_no_valid_pod(kube: KubeApi) -> None:
    """The page's own example: "a LimitRange does not check the consistency of the default values it
    applies"."""
    limits(kube, default={"cpu": "500m"}, defaultRequest={"cpu": "500m"}, min={"cpu": "100m"})
    answer = kube.create(pod(containers=[container(requests={"cpu": "700m"})]))
    assert (answer.status, answer.reason) == (422, "Invalid")
    assert answer.message == (
        'Pod "vm-1" is invalid: spec.containers[0].resources.requests: Invalid value: "700m": must '
        "be less than or equal to cpu limit of 500m"
    )


def test_a_pod_has_bounds_of_its_own(kube: KubeApi) -> None:
    """Sums of its containers, or its largest init container; nothing is filled in."""
    limits(kube, kind="Pod", max={"cpu": "2"})
    most = {"limits": {"cpu": "1500m"}}
    words = "maximum cpu usage per Pod is 2, but limit is 3"
    assert refused(kube, container(**most), container("b", **most)) == words
    assert filled(kube, container(**most), initContainers=[container("i", limits={"cpu": "2"})])


def test_a_claim_has_bounds_too(kube: KubeApi) -> None:
    limits(kube, kind="PersistentVolumeClaim", min={"storage": "1Gi"}, max={"storage": "10Gi"})
    for size, words in (
        ("500Mi", "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi"),
        ("20Gi", "maximum storage usage per PersistentVolumeClaim is 10Gi, but request is 20Gi"),
    ):
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
        body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}}
        answer = kube.create(body | {"spec": spec})
        assert answer.status == 403
        assert answer.message == f'persistentvolumeclaims "c" is forbidden: {words}'


def test_only_what_is_made_is_judged(kube: KubeApi) -> None:
    """Neither what is there already, nor another namespace's."""
    kube.create(pod(containers=[container(requests={"cpu": "1"})]))
    limits(kube, max={"cpu": "100m"})
    assert kube.patch("pods", "vm-1", {"metadata": {"labels": {"a": "b"}}}).status == 200
    other = kube.ask("POST", "/api/v1/namespaces/default/pods?dryRun=All", pod("vm-2"))
    assert other.status == 201


_WRONG: Final[tuple[tuple[str, JSON, str], ...]] = (
    ("Pod", {"default": {"cpu": "1"}}, "may not be specified when `type` is 'Pod'"),
    (
        "Container",
        {"min": {"cpu": "2"}, "max": {"cpu": "1"}},
        'spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1',
    ),
    (
        "Container",
        {"default": {"cpu": "2"}, "max": {"cpu": "1"}},
        'spec.limits[0].default[cpu]: Invalid value: "2": default value 2 is greater than max '
        "value 1",
    ),
    (
        "Container",
        {"default": {"cpu": "1"}, "defaultRequest": {"cpu": "2"}},
        'defaultRequest[cpu]: Invalid value: "2": default request value 2 is greater than default '
        "limit value 1",
    ),
    ("Container", {"maxLimitRequestRatio": {"cpu": "500m"}}, "ratio 500m is less than 1"),
)


@pytest.mark.parametrize(("kind", "item", "words"), _WRONG)
def test_a_range_that_makes_no_sense_is_refused(
    kube: KubeApi, kind: str, item: JSON, words: str
) -> None:
    answer = limits(kube, kind=kind, **item)
    assert answer.status == 422
    assert words in answer.message


@pytest.mark.standin
def test_a_launcher_is_held_to_it(kube: KubeApi) -> None:
    limits(kube, max={"memory": "1Gi"})
    assert kube.create(vmi()).status == 201
    status = kube.get("virtualmachineinstances.kubevirt.io", "vm-1").body["status"]
    (condition,) = status["conditions"]
    assert condition["reason"] == "FailedCreate"
    assert "must be less than or equal to memory limit of 1Gi" in condition["message"]
