"""Looks at pods that are being started: quick ones at a few of them, within bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from vmrunner_localclouds.common.faults import RequestFate
from vmrunner_localclouds.kube import FORBIDDEN

from tests.support.kube_driver import Cluster, cluster, make_order
from vmrunner.errors import Throttled
from vmrunner.model import Key, Power, Seen
from vmrunner.providers.kubernetes.describe import SINGLY
from vmrunner.providers.kubernetes.events import ASK_AGAIN_AFTER, SANDBOX_WITHIN, has_no_sandbox
from vmrunner.providers.kubernetes.provider import STARTING, STARTS_WITHIN, KubernetesProvider


@pytest.fixture
def kube() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


def born(kube: Cluster, runs: str, count: int = 1) -> list[Key]:
    provider = kube.provider(runs)
    orders = [make_order(provider) for _ in range(count)]
    return [Key(o.offer.scope, o.instance, provider.create(o).id) for o in orders]


def gets(kube: Cluster) -> int:
    return sum(request.action == "pods.get" for request in kube.cloud.requests)


def test_a_pod_that_starts_is_seen_within_one_look(kube: Cluster) -> None:
    kube.cloud.kubelet.seconds = 0.3
    keys = born(kube, "pod")
    provider, began, before = kube.provider("pod"), kube.clock(), gets(kube)
    assert provider.look(keys)[keys[0]].power is Power.RUNNING
    assert kube.clock() - began <= 0.4
    assert gets(kube) - before <= len(STARTING)


def test_one_that_takes_longer_is_told_to_be_pending(kube: Cluster) -> None:
    kube.cloud.kubelet.seconds = 60
    keys = born(kube, "pod")
    provider, before = kube.provider("pod"), gets(kube)
    assert provider.look(keys)[keys[0]].power is Power.PENDING
    assert gets(kube) - before == 1 + len(STARTING)
    assert sum(STARTING) > provider.look_every.fresh  # the next look follows at once


def test_whoever_pulls_an_image_is_looked_at_slowly(kube: Cluster) -> None:
    kube.cloud.kubelet.seconds = 60
    keys = born(kube, "pod")
    kube.clock.advance(STARTS_WITHIN + 1)
    provider, before = kube.provider("pod"), gets(kube)
    assert provider.look(keys)[keys[0]].power is Power.PENDING
    assert gets(kube) - before == 1


def test_many_that_start_are_looked_at_slowly(kube: Cluster) -> None:
    kube.cloud.kubelet.seconds = 60
    keys = born(kube, "pod", SINGLY + 1)
    provider, before = kube.provider("pod"), len(kube.cloud.requests)
    seen = provider.look(keys)
    assert {seen[key].power for key in keys} == {Power.PENDING}
    assert len(kube.cloud.requests) - before <= 2  # the namespace, and one list


def test_one_that_runs_waits_for_no_other(kube: Cluster) -> None:
    """It is told at once, whatever the others do."""
    kube.cloud.kubelet.seconds = 0.3
    first = born(kube, "pod")
    kube.cloud.kubelet.seconds = 60
    keys = first + born(kube, "pod")
    for most in (0.4, 0.0):
        began = kube.clock()
        seen = kube.provider("pod").look(keys)
        assert [seen[key].power for key in keys] == [Power.RUNNING, Power.PENDING]
        assert kube.clock() - began <= most


def test_a_hurried_look_that_fails_spoils_none(
    kube: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube.cloud.kubelet.seconds = 60
    keys = born(kube, "pod")
    provider = kube.provider("pod")
    looks = iter([provider.look(keys)])

    def look(_: KubernetesProvider, __: Sequence[Key]) -> Mapping[Key, Seen]:
        for seen in looks:
            return seen
        raise Throttled("too many requests")

    monkeypatch.setattr(KubernetesProvider, "look", look)
    assert provider.look(keys)[keys[0]].power is Power.PENDING


def test_a_slow_api_is_asked_in_no_hurry(kube: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    kube.cloud.kubelet.seconds = 60
    keys = born(kube, "pod")
    look = KubernetesProvider.look

    def slow(provider: KubernetesProvider, ids: Sequence[Key]) -> Mapping[Key, Seen]:
        kube.clock.advance(1.0)
        return look(provider, ids)

    monkeypatch.setattr(KubernetesProvider, "look", slow)
    began = kube.clock()
    kube.provider("pod").look(keys)
    assert kube.clock() - began < 2.2


def test_no_vm_is_looked_at_in_a_hurry(kube: Cluster) -> None:
    kube.cloud.virt.seconds = 60
    keys = born(kube, "vmi")
    provider, before = kube.provider("vmi"), len(kube.cloud.requests)
    assert provider.look(keys)[keys[0]].power is Power.PENDING
    assert len(kube.cloud.requests) - before <= 2


# --- what never starts ----------------------------------------------------------------------------

#: The handler that a node must have: of a unit's class, of KubeVirt's launchers.
HANDLERS: Final = {"pod": "runsc", "vmi": "runc"}
RUNS: Final = sorted(HANDLERS)


def lists_of_events(kube: Cluster) -> int:
    return sum(request.action == "events.list" for request in kube.cloud.requests)


def without_a_handler(kube: Cluster, runs: str) -> tuple[KubernetesProvider, Key]:
    """One that waits on a node which does not have its runtime class, for as long as that takes."""
    kube.cloud.kubelet.lacks.add(HANDLERS[runs])
    (key,) = born(kube, runs)
    provider = kube.provider(runs)
    kube.clock.advance(SANDBOX_WITHIN - 10)
    assert provider.look([key])[key].power is Power.PENDING
    assert lists_of_events(kube) == 0
    kube.clock.advance(20)
    return provider, key


@pytest.mark.parametrize("runs", RUNS)
def test_a_node_without_the_class_is_told(kube: Cluster, runs: str) -> None:
    """By its event: nothing else in the API says why it waits. Another node may have the class, so
    that the build may have another try."""
    provider, key = without_a_handler(kube, runs)
    seen = provider.look([key])[key]
    assert (seen.power, seen.unfit) == (Power.STOPPING, None)
    assert f'no runtime for "{HANDLERS[runs]}" is configured' in seen.detail
    assert "node_selector" in seen.detail


@pytest.mark.parametrize("runs", RUNS)
def test_one_that_got_its_place_late_is_well(kube: Cluster, runs: str) -> None:
    provider, key = without_a_handler(kube, runs)
    kube.cloud.kubelet.lacks.clear()
    kube.clock.advance(15)
    kube.wait(lambda: provider.look([key])[key].power is Power.RUNNING)


@pytest.mark.parametrize("runs", RUNS)
def test_who_may_not_list_events_waits_on(kube: Cluster, runs: str) -> None:
    """The words are for people: without them nothing is concluded, and no look fails."""
    provider, key = without_a_handler(kube, runs)

    def denied(request: Any) -> RequestFate | None:
        return FORBIDDEN if request.action == "events.list" else None

    kube.cloud.faults.on_request = denied
    for _ in range(int(ASK_AGAIN_AFTER) + 1):
        assert provider.look([key])[key].power is Power.PENDING
        kube.clock.advance(1)
    assert lists_of_events(kube) == 2


def test_a_slow_pull_asks_for_no_events(kube: Cluster) -> None:
    """It has its place."""
    kube.cloud.kubelet.pull_errors["registry.example/build"] = ("ContainerCreating", "")
    (key,) = born(kube, "pod")
    provider = kube.provider("pod")
    kube.clock.advance(SANDBOX_WITHIN + 10)
    assert provider.look([key])[key].power is Power.PENDING
    assert lists_of_events(kube) == 0


@pytest.mark.parametrize(("made", "waits"), [("False", True), ("True", False), (None, False)])
def test_only_a_kubelets_own_word_counts_as_no_place(made: str | None, waits: bool) -> None:
    """One of before 1.29 has no such condition: its pod may pull an image, after an event of long
    ago that was got over."""
    conditions = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-12-03T10:00:00Z"}
    ]
    if made is not None:
        conditions.append({"type": "PodReadyToStartContainers", "status": made})
    pod = {"status": {"phase": "Pending", "conditions": conditions}}
    now = datetime(2026, 12, 3, 10, 5, tzinfo=UTC).timestamp()
    assert has_no_sandbox(pod, now) is waits


def test_a_probe_on_such_a_node_says_why(kube: Cluster) -> None:
    kube.cloud.kubelet.lacks.add("runsc")
    words = kube.provider("pod").probes.unit()["exec"].words
    assert 'no runtime for "runsc" is configured' in words
