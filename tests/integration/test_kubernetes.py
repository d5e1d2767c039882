"""The Kubernetes driver against a local cluster: births that break off, what others made, deaths
that the cluster draws out, lists, deadlines, and what an operator changes meanwhile."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
import yaml
from vmrunner_localclouds.kube import EXPIRED, LOST_ANSWER, LOST_REQUEST, QUOTA
from vmrunner_localclouds.kube.access import User
from vmrunner_localclouds.kube.faults import THROTTLED
from vmrunner_localclouds.kube.kinds import JOBS, NAMESPACES, PODS, SECRETS, VMIS

from tests.support.kube_driver import Cluster, cluster, look, make_order, swept
from vmrunner.errors import BadOrder, CredentialsRefused, QuotaExceeded, Uncertain
from vmrunner.lib import ids
from vmrunner.model import Fate, Key, Kind, Power, Ref, Seen, Shape
from vmrunner.providers.common.capacity_pools import DRY
from vmrunner.providers.kubernetes.delete import UNSEEN
from vmrunner.providers.kubernetes.describe import KINDS_OF
from vmrunner.providers.kubernetes.provider import KubernetesProvider

MODES = ("vmi", "pod")
KIND = {"vmi": VMIS, "pod": PODS}


@pytest.fixture
def kube() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


@pytest.fixture(params=MODES)
def runs(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def provider(kube: Cluster, runs: str) -> KubernetesProvider:
    return kube.provider(runs)


def everything(kube: Cluster) -> Counter[str]:
    """How many of each kind are there."""
    kinds = (JOBS, SECRETS, VMIS, PODS)
    return Counter({kind.plural: n for kind in kinds if (n := len(kube.cloud.all(kind)))})


# --- birth ---------------------------------------------------------------------------------------


def test_the_job_comes_first_and_owns_all_else(kube: Cluster, provider: KubernetesProvider) -> None:
    order = make_order(provider)
    ref = provider.create(order)
    made = [r.action for r in kube.cloud.requests if r.action.endswith(".create")]
    kind = KIND[provider.options.runs]
    wanted = ["jobs.create", "secrets.create", f"{kind.plural}.create"]
    assert [action for action in made if action in wanted] == wanted
    job = kube.cloud.get(JOBS, order.instance)
    assert job is not None
    assert ref.id == f"{order.instance}/{job['metadata']['uid']}"
    for child in (SECRETS, kind):
        shown = kube.cloud.get(child, order.instance)
        assert shown is not None
        assert shown["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    assert not kube.cloud.rejected


@pytest.mark.parametrize("fate", [LOST_REQUEST, LOST_ANSWER], ids=["unheard", "heard"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_birth_that_broke_off_goes_on_as_the_same(
    kube: Cluster, provider: KubernetesProvider, place: int, fate: Any
) -> None:
    kind = KIND[provider.options.runs]
    action = ("jobs.create", "secrets.create", f"{kind.plural}.create")[place]
    order = make_order(provider)
    kube.cloud.faults.fail(action, fate)
    with pytest.raises(Uncertain):
        provider.create(order)
    kube.clock.advance(7)  # the seconds that are left are others
    ref = kube.provider(provider.options.runs).create(order)
    assert provider.create(order) == ref
    assert everything(kube)[JOBS.plural] == everything(kube)[kind.plural] == 1 or (
        kind is PODS or len(kube.cloud.all(VMIS)) == 1
    )
    seen = kube.wait(lambda: look(provider, order, ref))
    assert seen.ref == ref


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_a_crash_leaves_ends_by_itself_at_its_deadline(
    kube: Cluster, provider: KubernetesProvider, place: int
) -> None:
    """Nothing of ours is alive any more."""
    kind = KIND[provider.options.runs]
    action = ("jobs.create", "secrets.create", f"{kind.plural}.create")[place]
    order = make_order(provider, ttl=60)
    kube.cloud.faults.fail(action, LOST_ANSWER)
    with pytest.raises(Uncertain):
        provider.create(order)
    del provider
    assert everything(kube)
    kube.clock.advance(59)
    assert everything(kube)
    kube.wait(lambda: not everything(kube), seconds=10)


def test_what_is_born_after_its_job_is_gone_dies(
    kube: Cluster, provider: KubernetesProvider
) -> None:
    kind = KIND[provider.options.runs]
    order = make_order(provider)
    client, late = provider.client, []

    def create(api: Any, body: Any, **more: Any) -> Any:
        if api.plural == kind.plural:
            provider.delete([Ref(order.offer.scope, Kind.INSTANCE, f"{order.instance}/{uid()}")])
            kube.wait(lambda: not kube.cloud.all(JOBS))
            late.append(api.plural)
        return original(api, body, **more)

    def uid() -> str:
        return str(kube.cloud.all(JOBS)[0]["metadata"]["uid"])

    original = client.create
    client.create = create  # type: ignore[method-assign]
    provider.create(order)
    assert late == [kind.plural]
    kube.wait(lambda: not everything(kube), seconds=60)


def test_a_strangers_object_of_that_name_is_left_alone(
    kube: Cluster, provider: KubernetesProvider
) -> None:
    kind = KIND[provider.options.runs]
    for place, (api, spec) in enumerate(((JOBS, _idle()), (kind, _plain(kind)))):
        order = make_order(provider)
        theirs = {"metadata": {"name": order.instance, "labels": {"app": "theirs"}}, "spec": spec}
        kube.cloud.add_object(api, theirs)
        with pytest.raises(BadOrder, match="not of this order"):
            provider.create(order)
        assert look(provider, order) is None
        uid = kube.cloud.get(api, order.instance)["metadata"]["uid"]  # type: ignore[index]
        ref = Ref(order.offer.scope, Kind.INSTANCE, f"{order.instance}/{ids.instance_id()}")
        assert provider.delete([ref], force=True)[ref].fate is Fate.MISSING
        kept = kube.cloud.get(api, order.instance)
        assert kept is not None
        assert kept["metadata"]["uid"] == uid
        assert "deletionTimestamp" not in kept["metadata"]
        assert place or not kube.cloud.all(SECRETS)


def test_another_installations_order_is_not_adopted(
    kube: Cluster, provider: KubernetesProvider
) -> None:
    order = make_order(provider)
    provider.create(order)
    for other in (
        {"installation": "00000000-0000-4000-8000-00000000000f"},
        {"generation": "00000000-0000-4000-8000-00000000000f"},
        {"build": ids.build_id()},
    ):
        with pytest.raises(BadOrder, match="not of this order"):
            provider.create(dataclasses.replace(order, **other))


def test_a_birth_refused_half_way_leaves_nothing(
    kube: Cluster, provider: KubernetesProvider
) -> None:
    kind = KIND[provider.options.runs]
    for action in ("secrets.create", f"{kind.plural}.create"):
        kube.cloud.faults.fail(action, QUOTA)
        with pytest.raises(QuotaExceeded):
            provider.create(make_order(provider))
        kube.wait(lambda: not everything(kube))
        kube.clock.advance(DRY)


@pytest.mark.parametrize("place", [0, 1])
def test_a_birth_throttled_half_way_goes_on(
    kube: Cluster, provider: KubernetesProvider, place: int
) -> None:
    """A Job that was told to go keeps its name until a collector comes by: the same order again
    would find it dying, and its build would end for a server that was busy."""
    kind = KIND[provider.options.runs]
    kube.cloud.garbage.on = False
    order = make_order(provider)
    kube.cloud.faults.fail(("secrets.create", f"{kind.plural}.create")[place], THROTTLED)
    with pytest.raises(Uncertain, match="429"):  # something was born: the Job
        provider.create(order)
    ref = provider.create(order)
    assert kube.wait(lambda: look(provider, order, ref)).ref == ref
    assert "jobs.delete" not in [request.action for request in kube.cloud.requests]


def test_a_full_quota_refuses_nothing_that_is_born(
    kube: Cluster, provider: KubernetesProvider
) -> None:
    """An order that is sent again, its first answer lost: admission comes before names. What runs
    by then is not taken along."""
    kind = KIND[provider.options.runs]
    for child in (JOBS, SECRETS, kind):
        kube.cloud.faults.fail(f"{kind.plural}.create", LOST_ANSWER)
        order = make_order(provider)
        with pytest.raises(Uncertain):
            provider.create(order)
        kube.cloud.faults.fail(f"{child.plural}.create", QUOTA)
        ref = provider.create(order)
        assert kube.wait(lambda o=order, r=ref: look(provider, o, r)).power is not Power.DEAD
        assert "jobs.delete" not in [request.action for request in kube.cloud.requests]


# --- death ---------------------------------------------------------------------------------------


def born(kube: Cluster, provider: KubernetesProvider, **more: Any) -> tuple[Any, Ref]:
    order = make_order(provider, **more)
    ref = provider.create(order)
    kube.wait(lambda: (s := look(provider, order, ref)) and s.power is Power.RUNNING)
    return order, ref


def test_without_a_collector_a_second_delete_ends_it(
    kube: Cluster, provider: KubernetesProvider
) -> None:
    order, ref = born(kube, provider)
    kube.cloud.garbage.on = False
    assert provider.delete([ref])[ref].fate is Fate.ACCEPTED
    kube.clock.advance(5)
    assert provider.delete([ref])[ref].fate is Fate.ACCEPTED
    seen = look(provider, order, ref)
    assert seen is not None
    assert seen.power is Power.RUNNING
    kube.clock.advance(10)
    assert provider.delete([ref])[ref].fate is Fate.ACCEPTED
    kube.wait(lambda: (s := look(provider, order, ref)) and s.power is Power.DEAD)


def test_a_slow_collector_is_waited_for(kube: Cluster, provider: KubernetesProvider) -> None:
    order, ref = born(kube, provider)
    kube.cloud.garbage.seconds = 600.0
    provider.delete([ref])
    (shown,) = [r for r in swept(provider) if r.ref.kind is Kind.SCHEDULE]
    assert shown.power is Power.STOPPING
    powers = []
    for _ in range(14):  # a VM is collected after its Job
        kube.clock.advance(100)
        powers.append(look(provider, order, ref).power)  # type: ignore[union-attr]
    assert powers[0] is Power.RUNNING
    assert powers[-1] is Power.DEAD


def test_another_uid_is_never_deleted(kube: Cluster, provider: KubernetesProvider) -> None:
    order, ref = born(kube, provider)
    other = ref._replace(id=f"{order.instance}/00000000-0000-4000-8000-000000000abc")
    for force in (False, True):
        assert provider.delete([other], force=force)[other].fate is Fate.MISSING
    kube.clock.advance(60)
    seen = look(provider, order, ref)
    assert seen is not None
    assert seen.power is Power.RUNNING
    assert look(provider, order, other).power is Power.DEAD  # type: ignore[union-attr]


def test_a_lost_nodes_pod_lives_until_it_is_gone(kube: Cluster) -> None:
    provider = kube.provider("pod")
    order, ref = born(kube, provider)
    kube.cloud.lose_node()
    provider.delete([ref])
    kube.clock.advance(60)
    outcome = provider.delete([ref], force=True)[ref]
    assert (outcome.fate, outcome.error) == (Fate.ACCEPTED, "")
    assert look(provider, order, ref).power is Power.STOPPING  # type: ignore[union-attr]
    kube.clock.advance(300)
    assert provider.delete([ref])[ref].error == ""
    assert look(provider, order, ref).power is Power.STOPPING  # type: ignore[union-attr]
    outcome = provider.delete([ref], force=True)[ref]
    assert (outcome.fate, outcome.error) == (Fate.ACCEPTED, UNSEEN)
    assert look(provider, order, ref).power is Power.DEAD  # type: ignore[union-attr]


def test_a_finalizer_that_stays_keeps_it_alive(kube: Cluster, provider: KubernetesProvider) -> None:
    order, ref = born(kube, provider)
    (machine,) = [m for m in kube.cloud.machines if m.instance == order.instance]
    machine.stuck = True
    provider.delete([ref])
    for _ in range(3):
        kube.clock.advance(100)
        assert provider.delete([ref], force=True)[ref].fate is Fate.ACCEPTED
        assert look(provider, order, ref).power is Power.STOPPING  # type: ignore[union-attr]
    machine.release()
    kube.wait(lambda: look(provider, order, ref).power is Power.DEAD)  # type: ignore[union-attr]


def test_with_no_controllers_only_deletes_end_it(
    kube: Cluster, provider: KubernetesProvider
) -> None:
    """The controller-manager is down over the deadline."""
    order, ref = born(kube, provider, ttl=60)
    kube.cloud.jobs.on = kube.cloud.ttl.on = kube.cloud.garbage.on = False
    kube.cloud.kubelet.deadline_late = 1e9
    kube.clock.advance(3600)
    assert look(provider, order, ref).power is Power.RUNNING  # type: ignore[union-attr]
    provider.delete([ref])
    kube.clock.advance(30)
    provider.delete([ref])
    kube.wait(lambda: look(provider, order, ref).power is Power.DEAD)  # type: ignore[union-attr]
    kube.cloud.garbage.on = kube.cloud.jobs.on = kube.cloud.ttl.on = True
    kube.wait(lambda: not everything(kube))


# --- deadlines -----------------------------------------------------------------------------------


def test_a_lowered_deadline_ends_it_then_and_is_never_raised(
    kube: Cluster, provider: KubernetesProvider
) -> None:
    order, ref = born(kube, provider, ttl=600)
    due = provider.now() + 100
    provider.lower(ref, due)
    for later in (due + 50, order.deadline):
        provider.lower(ref, later)
    (job,) = kube.cloud.all(JOBS)
    began = kube.clock() - provider.now()
    assert job["spec"]["activeDeadlineSeconds"] <= 100 + began + 10
    if provider.options.runs == "pod":
        (pod,) = kube.cloud.all(PODS)
        assert pod["spec"]["activeDeadlineSeconds"] <= 110
    kube.clock.advance(90)
    assert everything(kube)
    kube.wait(lambda: not everything(kube), seconds=15)


def test_two_that_lower_at_once_end_at_the_earlier(
    kube: Cluster, provider: KubernetesProvider
) -> None:
    _, ref = born(kube, provider, ttl=600)
    first, due = True, provider.now() + 100
    other = kube.provider(provider.options.runs)
    original = provider.client.get

    def get(*args: Any) -> Any:
        nonlocal first
        shown = original(*args)
        if first:
            first = False
            other.lower(ref, due)
        return shown

    provider.client.get = get  # type: ignore[method-assign]
    provider.lower(ref, due + 200)
    (job,) = kube.cloud.all(JOBS)
    assert job["spec"]["activeDeadlineSeconds"] <= 110
    assert not kube.cloud.rejected or all("test" in text for text in kube.cloud.rejected)


# --- lists ---------------------------------------------------------------------------------------


def test_an_expired_list_begins_again_amid_a_sweep(
    kube: Cluster, provider: KubernetesProvider
) -> None:
    order, ref = born(kube, provider)
    for plural in (KIND[provider.options.runs].plural, "jobs", "secrets"):
        kube.cloud.faults.fail(f"{plural}.list", EXPIRED)
    pages = list(provider.sweep())
    assert not [page.error for page in pages if page.error]
    assert ref in {resource.ref for page in pages for resource in page.resources}
    for _ in range(9):
        kube.cloud.faults.fail("jobs.list", EXPIRED)
    holes = {page.kind: page.error for page in provider.sweep() if page.error}
    assert holes.keys() == {Kind.SCHEDULE}
    assert order


def test_a_look_tells_which_digest_a_tag_became(kube: Cluster) -> None:
    """With the first address, since no step runs before that."""
    provider = kube.provider("pod")
    tagged = make_order(provider)
    shape = Shape(container=f"r.example/b@sha256:{'b' * 64}", runtime="runc", log_bytes=1)
    orders = [tagged, make_order(provider, shape=shape)]
    refs = [provider.create(order) for order in orders]

    def shown() -> list[Seen]:
        found = (look(provider, *each) for each in zip(orders, refs, strict=True))
        return [seen for seen in found if seen is not None]

    kube.wait(lambda: all(seen.address for seen in shown()))
    first, second = shown()
    digest = sha256(b"registry.example/build").hexdigest()
    assert first.container == f"registry.example/build@sha256:{digest}"
    assert second.container == shape.container


def test_many_are_looked_at_in_one_list(kube: Cluster, provider: KubernetesProvider) -> None:
    orders = [make_order(provider) for _ in range(12)]
    refs = [provider.create(order) for order in orders]
    keys = [
        Key(order.offer.scope, order.instance, ref.id)
        for order, ref in zip(orders, refs, strict=True)
    ]
    before = len(kube.cloud.requests)
    seen = provider.look(keys)
    assert set(seen) == set(keys)
    assert len(kube.cloud.requests) - before == 1
    provider.look(keys[:3])
    assert len(kube.cloud.requests) - before == 4


def test_labels_that_somebody_took_away_kill_nothing(
    kube: Cluster, provider: KubernetesProvider
) -> None:
    """A list by labels is not the whole list: what it lacks may be alive."""
    orders = [make_order(provider) for _ in range(6)]
    refs = [provider.create(order) for order in orders]
    api = KINDS_OF[provider.options.runs][0]
    keys = [
        Key(order.offer.scope, order.instance, ref.id)
        for order, ref in zip(orders, refs, strict=True)
    ]
    for order in orders[:5]:
        stripped = {"metadata": {"labels": None}}
        provider.client.patch(api, order.instance, stripped, how="merge-patch")
        assert all(seen.power is not Power.DEAD for seen in provider.look(keys).values())
    provider.delete([refs[5]])
    kube.wait(lambda: provider.look(keys)[keys[5]].power is Power.DEAD)
    assert [provider.look(keys)[key].power is Power.DEAD for key in keys] == [False] * 5 + [True]


def test_an_answer_that_is_no_list_proves_nothing(
    kube: Cluster, provider: KubernetesProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = [make_order(provider) for _ in range(5)]
    keys = [Key(o.offer.scope, o.instance, provider.create(o).id) for o in orders]
    status = {"kind": "Status", "apiVersion": "v1", "status": "Success"}
    monkeypatch.setattr(provider.client, "call", lambda *_, **__: status)
    with pytest.raises(Uncertain):
        provider.look(keys)


def test_pods_of_a_former_configuration_are_seen(kube: Cluster) -> None:
    former, now = kube.provider("pod"), kube.provider("vmi")
    order, ref = born(kube, former)
    assert look(now, order, ref).power is Power.RUNNING  # type: ignore[union-attr]
    assert ref in {resource.ref for resource in swept(now)}
    now.delete([ref])
    kube.wait(lambda: look(now, order, ref).power is Power.DEAD)  # type: ignore[union-attr]


def test_the_pod_of_a_vm_is_no_instance(kube: Cluster) -> None:
    provider = kube.provider("vmi")
    order, ref = born(kube, provider)
    assert len(kube.cloud.all(PODS)) == 1
    shown = [r.ref for r in swept(provider) if r.ref.kind is Kind.INSTANCE]
    assert shown == [ref]
    assert order


# --- what an operator changes --------------------------------------------------------------------


def test_a_namespace_made_anew_is_another_scope(
    kube: Cluster, provider: KubernetesProvider
) -> None:
    order, ref = born(kube, provider)
    (former,) = provider.scopes
    kube.cloud.delete(NAMESPACES, kube.cloud.get(NAMESPACES, "vmrunner"))  # type: ignore[arg-type]
    kube.wait(lambda: kube.cloud.get(NAMESPACES, "vmrunner") is None)
    kube.cloud.add_object(NAMESPACES, {"metadata": {"name": "vmrunner"}})
    with pytest.raises(Uncertain, match="made anew"):
        look(provider, order, ref)
    pages = list(provider.sweep())
    assert former not in {page.scope for page in pages}
    assert former not in provider.scopes
    assert look(provider, order, ref) is None
    assert provider.delete([ref])[ref].fate is Fate.FAILED
    with pytest.raises(BadOrder):
        provider.create(order)


def test_a_namespace_made_anew_amid_a_sweep_proves_nothing(
    kube: Cluster, provider: KubernetesProvider
) -> None:
    born(kube, provider)
    pages = provider.sweep()
    first = next(pages)
    kube.cloud.delete(NAMESPACES, kube.cloud.get(NAMESPACES, "vmrunner"))  # type: ignore[arg-type]
    kube.wait(lambda: kube.cloud.get(NAMESPACES, "vmrunner") is None)
    kube.cloud.add_object(NAMESPACES, {"metadata": {"name": "vmrunner"}})
    rest = list(pages)
    assert first.more
    assert all(page.error for page in rest if not page.more)


def test_a_token_that_expired_is_read_again(kube: Cluster, runs: str) -> None:
    cloud = kube.cloud
    user = User(name="system:admin", groups=("system:masters",), expires=cloud.now() + 60)
    token = kube.cache / "token"
    token.write_text(cloud.access.token(user))
    table = cloud.config("none")
    table["users"][0]["user"] = {"tokenFile": str(token)}
    config = kube.cache / "config"
    config.write_text(yaml.safe_dump(table))
    provider = kube.provider(runs, kubeconfig=str(config))
    order, ref = born(kube, provider)
    kube.clock.advance(120)
    with pytest.raises(CredentialsRefused, match="401"):
        look(provider, order, ref)
    fresh = dataclasses.replace(user, expires=cloud.now() + 600)
    token.write_text(cloud.access.token(fresh))
    assert look(provider, order, ref) is not None


def test_a_kubeconfig_is_read_again_once_refused(kube: Cluster, runs: str) -> None:
    """As the refusal's own hint says to do; whoever serves for months does not start anew."""
    cloud, config, token = kube.cloud, kube.cache / "config", kube.cache / "token"
    program = f"import json, pathlib; token = pathlib.Path({str(token)!r}).read_text(); "
    program += "print(json.dumps({'status': {'token': token}}))"
    plugin = {"command": sys.executable, "args": ["-c", program], **_PLUGIN}

    def renew(*, by_plugin: bool) -> None:
        """Write a token of one minute down."""
        user = User(name="system:admin", groups=("system:masters",), expires=cloud.now() + 60)
        token.write_text(cloud.access.token(user))
        table = cloud.config(token.read_text())
        if by_plugin:
            table["users"][0]["user"] = {"exec": plugin}
        config.write_text(yaml.safe_dump(table))

    for by_plugin in (False, True):
        renew(by_plugin=by_plugin)
        provider = kube.provider(runs, kubeconfig=str(config))
        order, ref = born(kube, provider)
        kube.clock.advance(120)
        with pytest.raises(CredentialsRefused, match="401"):
            look(provider, order, ref)
        renew(by_plugin=by_plugin)
        assert look(provider, order, ref) is not None
        provider.delete([ref])


def test_another_certificate_is_told_and_taken_with_its_authority(kube: Cluster, runs: str) -> None:
    provider = kube.provider(runs)
    order, ref = born(kube, provider)
    kube.cloud.renew_certificate()
    provider = kube.provider(runs)
    with pytest.raises(Uncertain, match="certificate-authority"):
        look(provider, order, ref)
    kube.cloud.kubeconfig.write_text(yaml.safe_dump(kube.cloud.config(kube.cloud.token)))
    assert look(provider, order, ref) is not None


_PLUGIN = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}


def _idle() -> dict[str, Any]:
    container = {"name": "none", "image": "none"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {"parallelism": 0, "template": template}


def _plain(kind: Any) -> dict[str, Any]:
    if kind is PODS:
        return {"containers": [{"name": "vmrunner", "image": "theirs"}]}
    return {"domain": {"memory": {"guest": "1Gi"}, "devices": {}}}


def test_a_cluster_that_was_never_reached_is_no_empty_one(kube: Cluster, runs: str) -> None:
    """Nothing at all was shown, and `audit` took that for "no survivor"."""
    new = kube.provider(runs)
    kube.cloud.faults.fail("namespaces.get", *[LOST_REQUEST] * 20)
    with pytest.raises(Uncertain):
        swept(new)
