"""The API of the local Kubernetes: names, versions, lists, patches, deletes. Each rule names its
source in kubernetes 1.34.2; "measured" is a real control plane of that version."""

from __future__ import annotations

import pytest

from tests.support.kube import (
    JSON_PATCH,
    MERGE,
    STRATEGIC,
    KubeApi,
    job,
    kubernetes,
    pod,
    secret,
    vmi,
)
from tests.support.kube import kube as kube  # the fixture


def test_a_name_is_taken_once(kube: KubeApi) -> None:
    """apiserver registry/generic/registry/store.go, `Create`; measured."""
    first = kube.create(job())
    again = kube.create(job())
    assert (first.status, again.status, again.reason) == (201, 409, "AlreadyExists")
    assert again.message == 'jobs.batch "vm-1" already exists'
    assert kube.delete("jobs.batch", "vm-1", propagationPolicy="Background").status == 200
    kube.until(lambda: kube.gone("jobs.batch", "vm-1"))
    second = kube.create(job())
    assert second.status == 201
    assert second.uid != first.uid


def test_versions_rise_by_every_write(kube: KubeApi) -> None:
    """One revision of etcd for all kinds: apiserver storage/etcd3/store.go."""
    versions = [kube.create(body).version for body in (secret("a"), job(), secret("b"))]
    assert sorted(set(versions)) == versions
    changed = kube.patch("secrets", "a", {"metadata": {"labels": {"a": "b"}}})
    same = kube.patch("secrets", "a", {"metadata": {"labels": {"a": "b"}}})
    assert changed.version > versions[-1]
    assert same.version == changed.version  # nothing is written where nothing has changed
    assert int(kube.list("pods").body["metadata"]["resourceVersion"]) >= changed.version


def test_an_update_of_an_older_version_is_a_conflict(kube: KubeApi) -> None:
    """registry/generic/registry/store.go, `Update`: `OptimisticLockErrorMsg`."""
    before = kube.create(secret()).body
    kube.patch("secrets", "vm-1", {"metadata": {"labels": {"a": "b"}}})
    late = kube.update(before)
    assert (late.status, late.reason) == (409, "Conflict")
    assert "the object has been modified" in late.message
    late = kube.patch("secrets", "vm-1", {"metadata": {"resourceVersion": "1"}})
    assert late.status == 409
    current = kube.get("secrets", "vm-1").body
    current["metadata"]["labels"] = {}
    assert kube.update(current).status == 200


@pytest.mark.parametrize("body", [job(), pod(), secret(), vmi()], ids=lambda body: body["kind"])
def test_an_unknown_field_is_refused(kube: KubeApi, body: dict[str, object]) -> None:
    """`fieldValidation=Strict`; measured. A VMI's is refused by KubeVirt's webhook too."""
    if body["kind"] == "VirtualMachineInstance":
        _need_kubevirt(kube)
    wrong = {**body, "spec": {**body.get("spec", {}), "surprise": 1}}  # type: ignore[dict-item]
    refused = kube.create(wrong, fieldValidation="Strict")
    assert refused.status in (400, 422)
    assert "surprise" in refused.message or "spec" in refused.message
    assert kube.create(body, fieldValidation="Strict").status == 201


def test_a_wrong_type_is_refused_always(kube: KubeApi) -> None:
    """Decoding into the type: apimachinery runtime/serializer/json."""
    wrong = job(activeDeadlineSeconds="soon")
    assert kube.create(wrong).status == 400
    assert kube.create(pod(containers=[{"name": "a", "image": 1}])).status == 400


def test_an_unknown_field_is_dropped_and_told(kube: KubeApi) -> None:
    """`fieldValidation` is Warn where it is not said: kubernetes.io, API concepts. A quote in a
    warning is escaped: apimachinery util/net/http.go, `NewWarningHeader`."""
    made = kube.create(job(surprise=1))
    assert made.status == 201
    assert made.headers["Warning"] == '299 - "unknown field \\"spec.surprise\\""'
    assert "surprise" not in made.body["spec"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (job("UPPER"), "metadata.name"),
        (job() | {"metadata": {"name": "a", "labels": {"a": "with space"}}}, "metadata.labels"),
        (job() | {"metadata": {"name": "a", "labels": {"a": "x" * 64}}}, "metadata.labels"),
        (job(activeDeadlineSeconds=-1), "spec.activeDeadlineSeconds"),
        (pod(activeDeadlineSeconds=0), "spec.activeDeadlineSeconds"),
        (pod(containers=[]), "spec.containers"),
        (pod(containers=[{"name": "a"}]), "spec.containers[0].image"),
        (pod(containers=[{"name": "a", "image": "b"}] * 2), "spec.containers[1].name"),
        (pod(dnsPolicy="None"), "spec.dnsConfig.nameservers"),
    ],
)
def test_what_is_wrong_is_named(kube: KubeApi, body: dict[str, object], field: str) -> None:
    """pkg/apis/core/validation/validation.go, apimachinery api/validation/objectmeta.go."""
    refused = kube.create(body)
    assert (refused.status, refused.reason) == (422, "Invalid")
    assert field in {cause["field"] for cause in refused.body["details"]["causes"]}


def test_lists_select_by_labels(kube: KubeApi) -> None:
    """apimachinery labels/selector.go; a colon is no label's: measured."""
    for name, labels in (("a", {"x/y": "1"}), ("b", {"x/y": "2", "z": ""}), ("c", {})):
        kube.create({**secret(name), "metadata": {"name": name, "labels": labels}})

    def names(selector: str) -> str:
        found = kube.list("secrets", labelSelector=selector).body["items"]
        return "".join(each["metadata"]["name"] for each in found)

    assert names("x/y=1") == names("x/y==1") == "a"
    assert names("x/y") == names("x/y in (1, 2)") == "ab"
    assert names("!x/y") == names("x/y notin (1,2)") == "c"
    assert names("x/y!=1") == "bc"
    assert names("x/y=2,z=") == "b"
    for bad in ("a=with:colon", "a=(", "a in b", "=b"):
        assert kube.list("secrets", labelSelector=bad).status == 400, bad
    found = kube.list("secrets", fieldSelector="metadata.name=b").body["items"]
    assert [each["metadata"]["name"] for each in found] == ["b"]
    assert kube.list("secrets", fieldSelector="spec.nodeName=b").status == 400


def test_pages_of_a_list_are_one_snapshot(kube: KubeApi) -> None:
    """apiserver storage/etcd3/store.go, `GetList`; `remainingItemCount` measured."""
    for number in range(7):
        kube.create(secret(f"s-{number}"))
    first = kube.list("secrets", limit=3).body
    assert (len(first["items"]), first["metadata"]["remainingItemCount"]) == (3, 4)
    kube.create(secret("s-00"))
    kube.delete("secrets", "s-5")
    rest = kube.list("secrets", limit=500, **{"continue": first["metadata"]["continue"]}).body
    names = [each["metadata"]["name"] for each in first["items"] + rest["items"]]
    assert names == [f"s-{number}" for number in range(7)]
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert "continue" not in rest["metadata"]
    assert kube.list("secrets", limit=3, **{"continue": "garbage"}).status == 400


@pytest.mark.standin
def test_an_old_page_is_gone(kube: KubeApi) -> None:
    """410 `Expired` with a token for an inconsistent rest: storage/etcd3/errors.go,
    `handleCompactedErrorForPaging`; compaction is every five minutes."""
    for number in range(4):
        kube.create(secret(f"s-{number}"))
    token = kube.list("secrets", limit=2).body["metadata"]["continue"]
    kube.create(secret("s-20"))
    kube.clock.advance(301)
    gone = kube.list("secrets", limit=2, **{"continue": token})
    assert (gone.status, gone.reason) == (410, "Expired")
    again = kube.list("secrets", **{"continue": gone.body["metadata"]["continue"]}).body["items"]
    assert [each["metadata"]["name"] for each in again] == ["s-2", "s-20", "s-3"]


def test_a_merge_patch(kube: KubeApi) -> None:
    """RFC 7386: kubernetes.io, "Update API Objects in Place Using kubectl patch"."""
    kube.create(job())
    changed = kube.patch("jobs.batch", "vm-1", {"spec": {"activeDeadlineSeconds": 60}})
    assert (changed.status, changed.body["spec"]["activeDeadlineSeconds"]) == (200, 60)
    assert changed.body["metadata"]["generation"] == 2
    removed = kube.patch("jobs.batch", "vm-1", {"metadata": {"labels": None}}, MERGE)
    assert not removed.body["metadata"].get("labels")


def test_a_json_patch_may_test_first(kube: KubeApi) -> None:
    """RFC 6902: a `test` that fails is 422 and nothing is changed."""
    kube.create(job(seconds=100))
    path = "/spec/activeDeadlineSeconds"

    def lower(former: int, to: int) -> int:
        test = {"op": "test", "path": path, "value": former}
        change = {"op": "replace", "path": path, "value": to}
        return kube.patch("jobs.batch", "vm-1", [test, change], JSON_PATCH).status

    assert (lower(100, 50), lower(100, 40)) == (200, 422)
    assert kube.get("jobs.batch", "vm-1").body["spec"]["activeDeadlineSeconds"] == 50


def test_a_strategic_patch_merges_lists_by_name(kube: KubeApi) -> None:
    """apimachinery util/strategicpatch: `patchMergeKey` of the type."""
    kube.create(pod())
    patch = {"spec": {"containers": [{"name": "build", "image": "debian:12"}]}}
    changed = kube.patch("pods", "vm-1", patch, STRATEGIC)
    images = {each["name"]: each["image"] for each in changed.body["spec"]["containers"]}
    assert images == {"vmrunner": "debian:13", "build": "debian:12"}


def test_most_of_a_pod_is_never_changed(kube: KubeApi) -> None:
    """pkg/apis/core/validation/validation.go, `ValidatePodUpdate`."""
    kube.create(pod())
    refused = kube.patch("pods", "vm-1", {"spec": {"hostname": "other"}})
    assert refused.status == 422
    assert "pod updates may not change fields other than" in refused.message
    template = {"spec": {"template": {"spec": {"containers": [{"name": "x", "image": "y"}]}}}}
    kube.create(job())
    refused = kube.patch("jobs.batch", "vm-1", template)
    assert (refused.status, "field is immutable" in refused.message) == (422, True)


def test_preconditions_hold_or_nothing_is_deleted(kube: KubeApi) -> None:
    """apiserver registry/rest/delete.go, `BeforeDelete`; measured."""
    made = kube.create(secret())
    other = {"uid": "11111111-1111-4111-8111-111111111111"}
    assert kube.delete("secrets", "vm-1", preconditions=other).status == 409
    assert kube.delete("secrets", "vm-1", preconditions={"resourceVersion": "1"}).status == 409
    assert kube.get("secrets", "vm-1").status == 200
    ended = kube.delete("secrets", "vm-1", preconditions={"uid": made.uid})
    assert (ended.status, ended.body["status"]) == (200, "Success")
    assert ended.body["details"]["uid"] == made.uid
    assert kube.delete("secrets", "vm-1").status == 404


def test_a_finalizer_holds_what_is_deleted(kube: KubeApi) -> None:
    """registry/generic/registry/store.go, `ShouldDeleteDuringUpdate`."""
    body = secret()
    body["metadata"]["finalizers"] = ["example.com/hold"]
    kube.create(body)
    marked = kube.delete("secrets", "vm-1")
    assert marked.status == 200
    assert marked.body["metadata"]["deletionTimestamp"]
    more = {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}
    assert kube.patch("secrets", "vm-1", more).status == 422
    assert kube.get("secrets", "vm-1").status == 200
    kube.patch("secrets", "vm-1", {"metadata": {"finalizers": None}})
    assert kube.gone("secrets", "vm-1")


def test_a_dry_run_writes_nothing(kube: KubeApi) -> None:
    """kubernetes.io, API concepts, "Dry-run"."""
    made = kube.create(job(), dryRun="All")
    assert made.status == 201
    assert made.uid
    assert kube.gone("jobs.batch", "vm-1")
    kube.create(secret())
    assert kube.ask("DELETE", kube.path("secrets", "vm-1") + "?dryRun=All").status == 200
    assert kube.get("secrets", "vm-1").status == 200


def test_what_is_in_a_namespace_ends_with_it(kube: KubeApi) -> None:
    """pkg/controller/namespace/deletion/namespaced_resources_deleter.go."""
    before = kube.ask("GET", f"/api/v1/namespaces/{kube.namespace}")
    kube.create(secret())
    kube.ask("DELETE", f"/api/v1/namespaces/{kube.namespace}")
    kube.until(lambda: kube.ask("GET", f"/api/v1/namespaces/{kube.namespace}").status == 404)
    assert kube.create(secret("late")).status == 404
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": kube.namespace}}
    again = kube.ask("POST", "/api/v1/namespaces", body)
    assert again.uid != before.uid
    assert kube.gone("secrets", "vm-1")


def test_nobody_is_let_in_without_a_token(kube: KubeApi) -> None:
    """apiserver endpoints/filters/authentication.go."""
    for token in ("", "wrong"):
        refused = kube.ask("GET", kube.path("pods"), token=token)
        assert refused.status in (401, 403)


def _need_kubevirt(kube: KubeApi) -> None:
    found = kube.ask("GET", "/apis/kubevirt.io/v1")
    assert found.status == 200, "this cluster has no KubeVirt"


@pytest.mark.standin
@pytest.mark.parametrize("version", ["1.33", "1.37"])
def test_other_versions_take_the_same_bodies(version: str) -> None:
    with kubernetes(version=version) as kube:
        for body in (job(), pod(), secret(), vmi()):
            assert kube.create(body, fieldValidation="Strict").status == 201
        assert kube.ask("GET", "/version").body["minor"] == version.partition(".")[2]


def test_a_definition_makes_its_kind_known(kube: KubeApi) -> None:
    """kubernetes.io, "Extend the Kubernetes API with CustomResourceDefinitions"."""
    spec = {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}
    schema = {"type": "object", "properties": {"spec": spec}}
    names = {"plural": "things", "singular": "thing", "kind": "Thing"}
    version = {"name": "v1", "served": True, "storage": True}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": names,
            "versions": [version | {"schema": {"openAPIV3Schema": schema}}],
        },
    }
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert kube.ask("POST", path, definition, fieldValidation="Strict").status == 201
    body = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}}
    kube.until(lambda: kube.list("things.example.com").status == 200)
    made = kube.create(body | {"spec": {"size": 1}}, fieldValidation="Strict")
    assert made.status == 201
    wrong = body | {"metadata": {"name": "b"}}
    for bad in ({"size": "large"}, {"size": 1, "shape": "round"}, {}):
        assert kube.create(wrong | {"spec": bad}, fieldValidation="Strict").status in (400, 422)
    changed = kube.patch("things.example.com", "a", {"spec": {"size": 2}})
    assert (changed.status, changed.body["metadata"]["generation"]) == (200, 2)
    kube.ask("DELETE", f"{path}/things.example.com")
    kube.until(lambda: kube.list("things.example.com").status == 404)
