"""Bodies of requests: by the publishers' own schemas, and what is never in them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import jsonschema
import kubernetes_validate
import pytest
from hypothesis import strategies as st
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from tests.unit.providers.kubernetes.orders import INSTALLATION, NAME, NOW, UID, options, order
from vmrunner.errors import BadOrder
from vmrunner.model import Network, Role, Shape
from vmrunner.providers.kubernetes import bodies
from vmrunner.providers.kubernetes.labels import digest, same_order, tags

ROOT = Path(__file__).parents[4]
SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
KUBEVIRT = ROOT / "localclouds/vmrunner_localclouds/kube/data/kubevirt-vmi.schema.json"
FILES = {
    "Job": "job-batch-v1.json",
    "Pod": "pod-v1.json",
    "Secret": "secret-v1.json",
    "PersistentVolumeClaim": "persistentvolumeclaim-v1.json",
}
#: The oldest whose fields we may use, and the newest there is.
VERSIONS = ("v1.33.0", "v1.37.0")
VOLUME = {"data_volume": {"claim": "vmrunner-image", "size": "40GiB", "storage_class": "fast"}}


def core_problems(body: dict[str, Any], version: str) -> list[str]:
    """What the strict schema of a version does not allow."""
    folder = SCHEMAS / f"{version}-local-strict"

    def local(uri: str) -> Resource[Any]:
        text = (folder / uri.rsplit("/", 1)[-1]).read_text()
        return Resource.from_contents(json.loads(text), default_specification=DRAFT7)

    schema = json.loads((folder / FILES[body["kind"]]).read_text())
    validator = jsonschema.Draft7Validator(schema, registry=Registry(retrieve=local))
    return [f"{list(e.path)}: {e.message[:100]}" for e in validator.iter_errors(body)]


def kubevirt_problems(body: dict[str, Any]) -> list[str]:
    definitions = json.loads(KUBEVIRT.read_text())["definitions"]
    for part in _parts(definitions):
        if part.get("type") == "object" and "properties" in part:
            part.setdefault("additionalProperties", False)
    schema = {"$ref": "#/definitions/v1.VirtualMachineInstance", "definitions": definitions}
    errors = jsonschema.Draft7Validator(schema).iter_errors(body)
    return [f"{list(e.path)}: {e.message[:100]}" for e in errors]


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    inner = value.values() if isinstance(value, dict) else value
    for part in inner:
        if isinstance(part, dict | list):
            yield from _parts(part)


def every() -> Iterator[dict[str, Any]]:
    """All bodies that are sent for one order, in each configuration."""
    pods, vms = options(runs="pod"), options(image=VOLUME)
    yield bodies.job(order(), NOW)
    yield bodies.secret(order(), UID, pods)
    yield bodies.secret(order(), UID, options())
    yield bodies.claim(order(), UID, vms)
    yield bodies.pod(order(), UID, pods, NOW)
    more: dict[str, Any] = {
        "node_selector": {"pool": "builds"},
        "tolerations": ({"key": "builds", "operator": "Exists"},),
        "priority_class": "builds",
        "runtime_class": "gvisor",
    }
    yield bodies.pod(order(), UID, options(runs="pod", **more), NOW)


@pytest.mark.parametrize("version", VERSIONS)
def test_each_body_fits_the_published_strict_schema(version: str) -> None:
    for body in every():
        assert core_problems(body, version) == [], body["kind"]


def test_a_vms_body_fits_kubevirts_own_schema() -> None:
    for given in (options(), options(image=VOLUME), options(node_selector={"a": "b"})):
        body = bodies.vmi(order(), UID, given)
        assert kubevirt_problems(body) == []
        assert kubevirt_problems({**body, "spec": {**body["spec"], "pool": 1}})


def test_nothing_shares_processes_or_the_nodes_network() -> None:
    """Root in the build would read the other container's keys."""
    for body in every():
        text = json.dumps(body)
        assert '"privileged": true' not in text
        for key in ("hostPID", "hostIPC", "hostNetwork", "hostPath", "pidMode"):
            assert key not in text
        spec = body.get("spec", {})
        pod = spec.get("template", {}).get("spec", spec)
        assert not pod.get("shareProcessNamespace")
        assert pod.get("automountServiceAccountToken", False) is False


def test_the_builds_container_sees_no_identity() -> None:
    spec = bodies.pod(order(), UID, options(runs="pod"), NOW)["spec"]
    (build,) = [c for c in spec["containers"] if c["name"] == "build"]
    mounts = {mount["name"]: mount for mount in build["volumeMounts"]}
    assert mounts.keys() == {"box", "work", "secrets"}
    assert mounts["box"]["readOnly"]
    assert "env" not in build
    assert "envFrom" not in build
    assert all("restartPolicy" not in c for c in spec["containers"] + spec["initContainers"])


SHARED = ("shareProcessNamespace", "pidMode", "hostPID", "hostIPC", "hostNetwork")


def shared(body: Any) -> set[str]:
    """Fields by which anything is shared with what is beside it."""
    found = {key for part in _parts([body]) for key in SHARED if part.get(key)}
    return found | {key for part in _parts([body]) for key in ("hostPath",) if key in part}


NAMES = st.text("abcdefghij", min_size=1, max_size=8)
OPTIONS = st.fixed_dictionaries(
    {
        "runs": st.just("pod"),
        "runtime_class": st.sampled_from([None, "kata-qemu", "gvisor", "runsc"]),
        "node_selector": st.dictionaries(NAMES, NAMES, max_size=2),
        "tolerations": st.sampled_from([(), ({"operator": "Exists"},)]),
        "priority_class": st.none() | NAMES,
        "disk": st.none() | st.integers(1, 1 << 44),
        "dns": st.sampled_from([("9.9.9.9",), ("::1", "1.1.1.1")]),
    }
)
ORDERS = st.fixed_dictionaries(
    {
        "network": st.sampled_from(list(Network)),
        "role": st.sampled_from(list(Role)),
        "tags": st.dictionaries(st.sampled_from([*SHARED, "team"]), NAMES, max_size=3),
        "pull": st.none() | st.just('{"auths":{}}'),
        "deadline": st.floats(NOW, NOW + 1e7),
    }
)


@hypothesis.given(OPTIONS, ORDERS, st.sampled_from(["1x512MiB", "2x4GiB", "64x512GiB"]))
@hypothesis.settings(max_examples=60, deadline=None)
def test_no_request_ever_shares_a_namespace(
    configured: dict[str, Any], changes: dict[str, Any], size: str
) -> None:
    pods, made = options(**configured), order(**changes)
    made = replace(made, offer=replace(made.offer, machine_type=size))
    sent = [bodies.job(made, NOW), bodies.secret(made, UID, pods)]
    sent += [bodies.pod(made, UID, pods, NOW), {"spec": bodies.pod_base(pods)}]
    assert [shared(body) for body in sent] == [set()] * 4
    assert shared({"spec": {**sent[2]["spec"], "shareProcessNamespace": True}})


def test_a_login_is_in_the_secret_and_nowhere_else() -> None:
    login = '{"auths":{"r":{"auth":"Y2FuYXJ5"}}}'
    made, pods = order(pull=login), options(runs="pod")
    secret, pod = bodies.secret(made, UID, pods), bodies.pod(made, UID, pods, NOW)
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    assert base64.b64decode(secret["data"][".dockerconfigjson"]) == login.encode()
    assert pod["spec"]["imagePullSecrets"] == [{"name": NAME}]
    assert core_problems(secret, VERSIONS[0]) == core_problems(pod, VERSIONS[0]) == []
    assert "Y2FuYXJ5" not in json.dumps(pod) + json.dumps(bodies.job(made, NOW)) + repr(made)
    assert "imagePullSecrets" not in bodies.pod(order(), UID, pods, NOW)["spec"]


def test_gvisor_opens_fifos_where_they_can_be_written() -> None:
    spec = bodies.pod(order(), UID, options(runs="pod", runtime_class="gvisor"), NOW)["spec"]
    (build,) = [c for c in spec["containers"] if c["name"] == "build"]
    assert {"name": "box", "mountPath": "/vmrunner"} in build["volumeMounts"]


def test_each_child_names_its_job_by_uid() -> None:
    children = [body for body in every() if body["kind"] != "Job"]
    children.append(bodies.vmi(order(), UID, options()))
    for body in children:
        (owner,) = body["metadata"]["ownerReferences"]
        assert owner == {"apiVersion": "batch/v1", "kind": "Job", "name": NAME, "uid": UID}


def test_labels_tell_all_that_a_reaper_needs() -> None:
    shown = tags(bodies.job(order(), NOW)["metadata"]["labels"])
    assert shown["vmrunner:installation"] == INSTALLATION
    assert shown["vmrunner:instance"] == NAME
    assert shown["vmrunner:role"] == "build"
    assert shown["vmrunner:expires-at"] == str(int(NOW + 3300.9))
    assert shown["vmrunner:max-ttl"] == "14400"
    assert shown["vmrunner:network"] == "none"
    assert "team" not in str(shown)
    pool = bodies.job(order(role=Role.POOL, build="", pool="quick"), NOW)
    assert pool["metadata"]["labels"]["vmrunner/pool"] == "quick"


def test_seconds_left_are_rounded_down_and_never_none() -> None:
    assert bodies.job(order(), NOW)["spec"]["activeDeadlineSeconds"] == 3300
    pod = bodies.pod(order(), UID, options(runs="pod"), NOW + 0.95)
    assert pod["spec"]["activeDeadlineSeconds"] == 3299
    assert bodies.job(order(), NOW + 9999)["spec"]["activeDeadlineSeconds"] == 1


def test_the_digest_leaves_the_seconds_out() -> None:
    first, later = bodies.job(order(), NOW), bodies.job(order(), NOW + 60)
    assert first["metadata"] == later["metadata"]
    assert first["spec"] != later["spec"]
    assert same_order(first, order())
    for other in (
        order(deadline=NOW + 3400),
        order(user_data=b"other"),
        order(network=Network.OPEN),
        order(installation="another"),
        order(generation="another"),
        order(build="b-01j0000000000000000000000c"),
    ):
        assert not same_order(first, other)
        assert digest(other) != digest(order()) or other.installation == "another"


def test_a_secret_holds_what_only_the_instance_may_know() -> None:
    vm = bodies.secret(order(), UID, options())["data"]
    assert base64.b64decode(vm["userdata"]) == order().user_data
    pod = bodies.secret(order(), UID, options(runs="pod"))["data"]
    assert base64.b64decode(pod["host_key"]) == b"KEY"
    with pytest.raises(BadOrder, match="user-data"):
        bodies.secret(order(user_data=b"x" * (1 << 21)), UID, options())
    with pytest.raises(BadOrder, match="bootstrap"):
        bodies.secret(order(identity=None), UID, options(runs="pod"))
    with pytest.raises(BadOrder, match="container"):
        bodies.pod(order(shape=None), UID, options(runs="pod"), NOW)
    with pytest.raises(BadOrder, match="tags"):
        bodies.job(order(tags={"a": "x" * (1 << 18)}), NOW)


def test_the_spool_holds_the_whole_log() -> None:
    spec = bodies.pod(order(), UID, options(runs="pod"), NOW)["spec"]
    (run,) = [v for v in spec["volumes"] if v["name"] == "run"]
    assert run["emptyDir"] == {"medium": "Memory", "sizeLimit": "68Mi"}


@pytest.mark.parametrize(
    ("log_bytes", "limit"), [(1 << 20, 256), (64 << 20, 256), (1 << 30, 1024 + 192)]
)
def test_a_log_in_memory_has_its_room(log_bytes: int, limit: int) -> None:
    """The log waits in a volume of memory, which counts for the container that writes it: one that
    is killed for it takes the unit along."""
    shape = Shape(container="python:3.13", runtime="runc", log_bytes=log_bytes)
    made = bodies.pod(order(shape=shape), UID, options(runs="pod"), NOW)["spec"]
    ours = next(each for each in made["containers"] if each["name"] == "vmrunner")
    assert ours["resources"]["limits"]["memory"] == f"{limit}Mi"
