"""What the Kubernetes driver costs its API server: calls of a build, requests of a sweep."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from vmrunner_localclouds.kube.kinds import PODS, VMIS

from tests.support.kube_driver import MODES, cluster, make_order
from vmrunner.model import Key, Power, Scope
from vmrunner.providers.kubernetes.identity import KIND

#: Calls of one build, with 200 at once.
MOST = 10
BUILDS = 200


@pytest.mark.parametrize("runs", sorted(MODES))
def test_two_hundred_builds_cost_ten_calls_each(runs: str) -> None:
    """Births, looks until all run, as often as an engine looks, ends, looks until all are dead."""
    with cluster() as kube:
        kube.cloud.virt.seconds = kube.cloud.kubelet.seconds = 5
        provider = kube.provider(runs)
        orders = [make_order(provider) for _ in range(BUILDS)]
        kube.cloud.requests.clear()
        with ThreadPoolExecutor(8) as pool:
            refs = list(pool.map(provider.create, orders))
        keys = [
            Key(order.offer.scope, order.instance, ref.id)
            for order, ref in zip(orders, refs, strict=True)
        ]

        def until(power: Power) -> None:
            pace = provider.look_every.fresh
            for _ in range(int(60 / pace)):
                seen = provider.look(keys)
                if all(seen[key].power is power for key in keys):
                    return
                kube.clock.advance(pace)
            raise AssertionError(f"not all are {power}")

        until(Power.RUNNING)
        for _ in range(6):  # a minute of work
            kube.clock.advance(provider.look_every.steady)
            provider.look(keys)
        provider.delete(refs)
        until(Power.DEAD)
        actions = Counter(request.action for request in kube.cloud.requests)
        print(runs, sum(actions.values()) / BUILDS, dict(actions))
        assert sum(actions.values()) <= MOST * BUILDS
        assert not kube.cloud.rejected


@pytest.mark.parametrize("runs", sorted(MODES))
def test_a_sweep_of_five_thousand_is_at_the_floor(runs: str) -> None:
    """500 a page; a list of nothing is one request; the namespace is asked before and after."""
    with cluster() as kube:
        provider = kube.provider(runs)
        assert provider.scopes
        kind = PODS if runs == "pod" else VMIS
        spec = (
            {"containers": [{"name": "vmrunner", "image": "x"}]}
            if runs == "pod"
            else {"domain": {"memory": {"guest": "1Gi"}, "devices": {}}}
        )
        kube.cloud.scheduler.on = kube.cloud.virt.on = False
        for number in range(5000):
            name = f"vm-{number:05d}"
            kube.cloud.add_object(kind, {"metadata": {"name": name}, "spec": spec})
        kube.cloud.requests.clear()
        (scope,) = {page.scope for page in provider.sweep() if not page.more}
        assert scope == Scope(KIND, scope.account, "vmrunner")
        actions = Counter(request.action for request in kube.cloud.requests)
        empty = "virtualmachineinstances" if runs == "pod" else "pods"
        assert actions == {
            "namespaces.get": 2,
            f"{kind.plural}.list": 10,
            f"{empty}.list": 1,
            "jobs.list": 1,
            "secrets.list": 1,
            "persistentvolumeclaims.list": 1,
        }
