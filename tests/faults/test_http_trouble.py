"""What goes wrong in a cloud for longer than one request, in whole lives over HTTP: a right that is
missing, pools that are empty, newborns that nobody sees, listings that break off. What only
Compute Engine or Azure can do is in `test_http_gce` and `test_http_azure`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.azure_side import AzureSide
from tests.faults.crash_points import (
    at_point,
    crash_points,
    crashed,
    finish_elsewhere,
    nothing_of_ours,
)
from tests.faults.ec2_side import Ec2Side
from tests.faults.gce_side import GceSide
from tests.faults.http_side import HttpSide
from tests.faults.kube_side import KubeSide, PodSide
from tests.faults.scenarios import SCENARIOS, begin
from tests.faults.world import LIMITS, World
from vmrunner.model import BuildState, InstanceState, Kind, Market, Reason, Result
from vmrunner.providers.fake import Call

Make = Callable[..., World]
BIRTHS = (
    "RunInstances",
    "instances.insert",
    "virtualMachines.put",
    "virtualmachineinstances.create",
    "pods.create",
)
SIDES = (Ec2Side, GceSide, AzureSide, KubeSide, PodSide)
FLOW = {scenario.name: scenario for scenario in SCENARIOS}
#: What stays where a kind cannot be listed: a disk waits until its VM is seen to be dead.
UNSEEN = {
    "DescribeInstances": {Kind.DISK, Kind.SCHEDULE},
    "DescribeVolumes": {Kind.DISK},
    "ListSchedules": {Kind.SCHEDULE},
    "instances.aggregatedList": {Kind.DISK, Kind.ADDRESS},
    "disks.aggregatedList": {Kind.DISK},
    "addresses.aggregatedList": {Kind.ADDRESS},
    "snapshots.list": {Kind.SNAPSHOT},  # Compute Engine's, and Azure's
    "virtualMachines.list": {Kind.DISK, Kind.INTERFACE, Kind.ADDRESS},
    "disks.list": {Kind.DISK},
    "networkInterfaces.list": {Kind.INTERFACE, Kind.ADDRESS},
    "publicIPAddresses.list": {Kind.ADDRESS},
    # Kubernetes': what has a Job goes with it, and what has none waits for its instance's absence.
    "virtualmachineinstances.list": {Kind.SECRET, Kind.DISK},
    "pods.list": {Kind.SECRET, Kind.DISK},
    "secrets.list": {Kind.SECRET},
    "persistentvolumeclaims.list": {Kind.DISK},
}


def denying(world: World, *actions: str) -> None:
    def judge(call: Call) -> Any:
        return world.cloud.denied if call.provider in actions else None

    world.judge = judge


@pytest.fixture
def http(make_http: Make) -> World:
    return make_http()


@pytest.fixture
def aws(make_ec2: Make) -> World:
    return make_ec2()


# --- rights --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "listing"),
    [(side, name) for side in SIDES for name in side.listings],
)
def test_a_kind_that_may_not_be_listed_saves_no_other(http: World, listing: str) -> None:
    """All that a reaper may find, and one kind that it may not see: VMs end all the same, by their
    rows where they are that kind, and the rest once the right is there."""
    world = http
    begin(world, FLOW["reap"])
    denying(world, listing)
    world.unseen = UNSEEN.get(listing, set())
    world.run(3 * world.sweep_seconds + LIMITS.newborn)
    kinds = {thing.ref.kind for thing in world.standing() if thing.born_of_us}
    assert kinds <= world.unseen
    world.judge, world.unseen, world.trouble = None, set(), world.clock()
    nothing_of_ours(world)


@pytest.mark.parametrize("heal", [True, False], ids=["mended", "never"])
def test_a_denied_arming_is_told_and_ends_no_build(aws: World, heal: bool) -> None:
    aws.build_seconds = 20
    build = aws.submit()
    denying(aws, "CreateSchedule")
    aws.node()
    if heal:
        aws.when(lambda: bool(aws.started), lambda: setattr(aws, "judge", None))
    aws.settle()
    assert aws.truth.builds.get(build.id).result is Result.SUCCESS
    troubles = [e for e in aws.truth.events.list(build.id) if e.kind == "trouble"]
    assert len(troubles) == 1
    fired = [m for m in aws.cloud.machines.values() if m.ref.kind is Kind.SCHEDULE]
    assert len([m for m in fired if m.born_of_us]) == heal
    nothing_of_ours(aws)


def test_where_metadata_may_not_be_switched_off_no_step_runs(aws: World) -> None:
    build = aws.submit()
    denying(aws, "ModifyInstanceMetadataOptions")
    aws.node()
    aws.settle()
    done = aws.truth.builds.get(build.id)
    assert (done.result, done.reason) == (Result.ERROR, Reason.CREDENTIALS)
    assert not aws.started
    nothing_of_ours(aws)


def test_who_may_not_terminate_launches_nothing(aws: World) -> None:
    aws.cloud.local.faults.deny("TerminateInstances")  # the simulation of rights says so
    build = aws.submit()
    aws.node()
    aws.run(60)
    assert aws.truth.builds.get(build.id).reason is Reason.CREDENTIALS
    assert not list(aws.ours())


def test_a_right_to_terminate_that_is_lost_and_given_back(http: World) -> None:
    """The deletes are asked for again until they are let through; the survivor is known."""
    build = http.submit()
    denying(http, http.cloud.ending)
    http.node()
    http.run(60)
    assert http.truth.builds.get(build.id).result is Result.SUCCESS
    (row,) = http.truth.instances.open()
    assert row.state is InstanceState.DELETING
    http.judge = None
    http.settle()
    nothing_of_ours(http)


# --- births --------------------------------------------------------------------------------------


def test_dry_pools_lead_on_and_nothing_is_born_twice(aws: World) -> None:
    """Spot, another subnet, another type: each a row of its own, until one gives."""
    site = aws.cloud.amazon.site
    pools = [(t, s) for t in ("m7i.large", "c7i.large") for s in site.subnets[:2]]
    aws.cloud.local.dry |= {(*pool, "spot") for pool in pools} | {(*pools[0], "on-demand")}
    build = aws.submit(spot=True)
    aws.node()
    aws.settle()
    assert aws.truth.builds.get(build.id).result is Result.SUCCESS
    rows = aws.truth.instances.list(build=build.id)
    assert len(rows) == 6
    (machine,) = aws.ours()
    (row,) = [row for row in rows if row.ref is not None]
    assert (row.ref, row.offer.market) == (machine.ref, Market.ON_DEMAND)
    nothing_of_ours(aws)


def test_where_all_pools_are_dry_the_build_says_so(http: World) -> None:
    http.cloud.dry_up()
    build, later = http.submit(), http.submit(queue_timeout=400)
    http.node()
    http.run(100)
    assert http.truth.builds.get(build.id).reason is http.cloud.dry_reason
    assert http.truth.builds.get(later.id).state is BuildState.QUEUED
    http.cloud.fill()
    http.run(400, until=http.quiet)
    assert http.truth.builds.get(later.id).result is Result.SUCCESS
    nothing_of_ours(http)


@pytest.mark.parametrize("lag", [0.0, 8.0])
def test_an_order_resent_under_another_configuration_is_one_vm(make_http: Make, lag: float) -> None:
    """Its owner was killed before the answer; whoever goes on would tag it otherwise. EC2 says
    IdempotentParameterMismatch, and the VM is found by its name; Compute Engine knows the request
    by its id."""
    world = make_http()
    world.cloud.local.visibility_lag = lag
    build = FLOW["take_over_asked"].arrange(world)
    world.cloud.options = dict(world.cloud.retagged)
    world.node()
    world.settle()
    sent = [r for r in world.cloud.local.requests if r.action in BIRTHS]
    assert len([r for r in sent if r.key != world.cloud.theirs]) >= 2
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    assert len(list(world.ours())) == 1
    nothing_of_ours(world)


@pytest.mark.parametrize("name", ["cancel_early", "take_over_asked"])
def test_a_newborn_not_found_is_not_taken_for_dead(make_http: Make, name: str) -> None:
    """Not visible (InvalidInstanceID.NotFound) for the first ten seconds, and a crash after each
    effect of the cloud."""

    def make() -> World:
        world = make_http()
        world.cloud.local.visibility_lag = 10.0
        return world

    scenario = FLOW[name]
    for at, place in enumerate(crash_points(make, scenario)):
        if place.startswith("after cloud."):
            with at_point(place):
                world, build = crashed(make, scenario, at)
                finish_elsewhere(world, scenario, build)


# --- listings ------------------------------------------------------------------------------------


def failing_page(world: World, number: int) -> None:
    """Each time somebody lists instances, its pages from this one on fail."""
    page = 0

    def judge(call: Call) -> Any:
        nonlocal page
        if (call.method, call.provider) != ("sweep", world.cloud.listings[0]):
            return None
        page = page + 1 if call.about else 1
        return world.cloud.troubles["5xx"][0] if page >= number else None

    world.judge = judge


@pytest.fixture
def short_pages(side: type[HttpSide], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side.page or f"vmrunner.providers.{side.driver}.sweep.PAGE", 5)


@pytest.mark.usefixtures("short_pages")
def test_a_sweep_that_breaks_off_half_way_proves_no_absence(http: World) -> None:
    """A running VM is on a page that cannot be read, and nobody looks at it but the reaper."""
    world = http
    for _ in range(5):
        world.cloud.plant(world.cloud.scope, {})
    world.build_seconds = 1e9
    build = world.submit(ttl=500, timeout=400)
    first = world.node(reaps=False)
    world.run(60, until=lambda: bool(world.started))
    failing_page(world, 2)
    reaper = world.node(drives=False)
    first.asleep = True
    world.run(200, step=5.0)
    (row,) = world.truth.instances.open()
    assert row.death is None
    assert world.truth.builds.get(build.id).state is BuildState.RUNNING
    assert not world.kills
    first.asleep = False
    world.run(400, until=lambda: not world.truth.instances.open(), step=5.0)
    reaper.kill()  # the VM was ended by its row, with its page never read
    world.judge = None
    world.node()
    nothing_of_ours(world)


@pytest.mark.usefixtures("short_pages")
def test_what_a_broken_sweep_did_show_counts(http: World) -> None:
    """A VM without a row, past its deadline, on the page before the one that fails."""
    world = http
    tags = {
        "vmrunner:installation": world.truth.installation,
        "vmrunner:role": "build",
        "vmrunner:instance": "vm-ghost",
        "vmrunner:expires-at": str(int(world.clock() - 100)),
    }
    ghost = world.cloud.plant(world.cloud.scope, tags)
    for _ in range(6):
        world.cloud.plant(world.cloud.scope, {})
    failing_page(world, 2)
    world.node(drives=False)
    world.run(3)
    assert not ghost.alive
    nothing_of_ours(world)
