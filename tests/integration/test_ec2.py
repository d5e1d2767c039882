"""The EC2 driver at the local endpoint: what it asks for, what it offers, what it sees and ends."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from vmrunner_localclouds.ec2 import Ec2Request, Mapping

from tests.support.ec2 import INSTALLATION, KINDS, REGION, Amazon, fleet, look, make_order, swept
from tests.support.ec2 import virtual_aws as virtual_aws  # the fixture
from vmrunner.errors import BadOrder, NoCapacity, QuotaExceeded
from vmrunner.model import Fate, Key, Kind, Market, Power, Role, Scope, Spec, tags_of
from vmrunner.providers.common.cloud_options import GiB
from vmrunner.providers.ec2.options import ImageChoice
from vmrunner.providers.port_images import FINISH_BY, OWNER


def requests_of(aws: Amazon, action: str = "RunInstances") -> list[Ec2Request]:
    return [request for request in aws.cloud.requests if request.action == action]


# --- birth ---------------------------------------------------------------------------------------


def test_the_one_call_holds_all_that_marks_and_ends_it(aws: Amazon) -> None:
    provider = aws.provider(tags={"team": "core"})
    order = make_order(provider)
    ref = provider.create(order)
    (request,) = requests_of(aws)
    assert request.params["ClientToken"] == order.instance
    assert (request.params["MinCount"], request.params["MaxCount"]) == ("1", "1")
    assert request.params["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert request.params["MetadataOptions.HttpTokens"] == "required"
    assert request.params["MetadataOptions.HttpPutResponseHopLimit"] == "1"
    absent = ("KeyName", "IamInstanceProfile.Name", "CreditSpecification.CpuCredits")
    assert not set(absent) & set(request.params)
    (machine,) = aws.cloud.machines
    assert machine.id == ref.id
    tags = {"team": "core", **tags_of(order)}
    assert machine.tags == tags
    backend = machine.backend
    things = [*backend.volumes.values(), *backend.enis.values()]
    assert len(things) == 2
    assert all(backend.tags[thing.id] == tags for thing in things)
    assert all(volume.encrypted for volume in backend.volumes.values())
    # Nothing else was made on the way, and nothing is left when it ends.
    changing = {
        r.action for r in aws.cloud.requests if not r.action.startswith(("Describe", "Get"))
    }
    assert changing == {"RunInstances", "SimulatePrincipalPolicy"}
    machine.power_off()
    assert machine.state == "terminated"
    assert not backend.volumes
    assert not backend.enis


def test_no_disk_of_an_image_outlives_its_vm(aws: Amazon) -> None:
    disks = [
        Mapping(device="/dev/xvda", size=8, delete_on_termination=False),
        Mapping(device="/dev/xvdb", size=3, delete_on_termination=False),
    ]
    provider = aws.provider(image=aws.cloud.image(REGION, "two", mappings=disks))
    ref = provider.create(make_order(provider, Spec(disk=20 * GiB)))
    (machine,) = aws.cloud.machines
    sizes = sorted(volume.size for volume in machine.backend.volumes.values())
    assert sizes == [3, 20]
    provider.delete([ref])
    assert not machine.backend.volumes


def test_spot_is_one_time_and_tagged(aws: Amazon) -> None:
    provider = aws.provider(spot="only")
    order = make_order(provider)
    assert order.offer.market is Market.SPOT
    provider.create(order)
    (machine,) = aws.cloud.machines
    (request,) = machine.backend.spot_instance_requests.values()
    assert (request.type, request.instance_interruption_behavior) == ("one-time", "terminate")
    assert machine.backend.tags[request.id] == tags_of(order)
    machine.preempt()
    seen = look(provider, order)
    assert seen is not None
    assert (seen.power, seen.preempted, seen.self_ended) == (Power.DEAD, True, False)


def test_what_is_configured_and_nothing_else(aws: Amazon) -> None:
    provider = aws.provider(
        instance_types=("t3.small",), address="private", instance_profile="builds"
    )
    order = make_order(provider)
    with pytest.raises(BadOrder, match="builds"):
        provider.create(order)  # there is no such profile
    (request,) = requests_of(aws)
    assert request.params["IamInstanceProfile.Name"] == "builds"
    assert request.params["CreditSpecification.CpuCredits"] == "standard"
    assert request.params["NetworkInterface.1.AssociatePublicIpAddress"] == "false"


def test_the_address_is_as_configured(aws: Amazon) -> None:
    for address, inside in (("public", False), ("private", True)):
        provider = aws.provider(address=address)
        order = make_order(provider)
        provider.create(order)
        seen = look(provider, order)
        assert seen is not None
        assert seen.address is not None
        assert seen.address.host.startswith("172.31.") is inside


# --- offers --------------------------------------------------------------------------------------


def names(provider: Any, spec: Spec | None = None) -> list[tuple[str, str, str]]:
    return [(o.market.value, o.machine_type, o.place) for o in provider.offers(spec or Spec())]


def test_offers_are_types_by_subnets_in_their_order(aws: Amazon) -> None:
    first, second = aws.site.subnets[:2]
    each = [
        ("m7i.large", first),
        ("m7i.large", second),
        ("c7i.large", first),
        ("c7i.large", second),
    ]
    plain = [("on-demand", *pool) for pool in each]
    assert names(aws.provider()) == plain
    assert names(aws.provider(spot="prefer")) == [("spot", *pool) for pool in each] + plain
    assert names(aws.provider(), Spec(spot=True)) == names(aws.provider(spot="prefer"))
    (offer, *_) = aws.provider().offers(Spec())
    assert (offer.cpus, offer.memory, offer.disk) == (2, 8 * GiB, 8 * GiB)
    assert offer.image == aws.site.image
    assert offer.scope == Scope("ec2", aws.cloud.account, REGION)


def test_offers_are_large_enough(aws: Amazon) -> None:
    provider = aws.provider(instance_types=("c7i.large", "m7i.large", "m7i.xlarge", "m7g.large"))
    subnet = aws.site.subnets[0]
    large = [name for _, name, place in names(provider, Spec(memory=8 * GiB)) if place == subnet]
    assert large == ["m7i.large", "m7i.xlarge"]  # the image does not run on m7g
    with pytest.raises(BadOrder, match=r"cpus = 64.*m7i.xlarge \(4 CPUs, 16 GiB\)"):
        provider.offers(Spec(cpus=64))
    with pytest.raises(BadOrder, match=r"disk = 2 GiB: image .* needs 8 GiB"):
        provider.offers(Spec(disk=2 * GiB))


def test_a_dry_pool_is_skipped_by_the_next_build(aws: Amazon) -> None:
    provider = aws.provider()
    best, *rest = names(provider)
    aws.cloud.dry.add(("m7i.large", best[2], "on-demand"))
    with pytest.raises(NoCapacity):
        provider.create(make_order(provider))
    assert names(provider) == rest
    assert aws.cloud.machines == []
    aws.cloud.quota["on-demand"] = 0
    for _ in rest:
        with pytest.raises(QuotaExceeded):
            provider.create(make_order(provider))
    with pytest.raises(NoCapacity, match="all 4 pools were dry a moment ago"):
        provider.offers(Spec())


def test_the_newest_image_is_found_by_id_name_or_tag(aws: Amazon) -> None:
    def found(image: str | ImageChoice, spec: Spec | None = None) -> str:
        return aws.provider(image=image).offers(spec or Spec())[0].image

    old = aws.cloud.image(REGION, "ci-1", tags={"stable": "yes"})
    aws.clock.advance(60)
    new = aws.cloud.image(REGION, "ci-2")
    assert found(old) == old
    assert found(ImageChoice(name="ci-*")) == new
    assert found("ci-1") == old
    assert found(ImageChoice(tags={"stable": "yes"})) == old
    assert found(new, Spec(image="ci-1")) == old


def test_what_is_looked_up_is_looked_up_once(aws: Amazon) -> None:
    provider = aws.provider()
    for _ in range(5):
        provider.create(make_order(provider))
    counts = Counter(request.action for request in aws.cloud.requests)
    assert counts.pop("RunInstances") == 5
    assert set(counts.values()) == {1}


# --- looking -------------------------------------------------------------------------------------


def test_many_are_looked_at_in_one_call(aws: Amazon) -> None:
    provider = aws.provider()
    orders = [make_order(provider) for _ in range(6)]
    refs = [provider.create(order) for order in orders]
    scope = orders[0].offer.scope
    keys = [Key(scope, o.instance, ref.id) for o, ref in zip(orders, refs, strict=True)]
    before = aws.cloud.count("DescribeInstances")
    unknown = Key(scope, "vm-nobody", "i-0123456789abcdef0")
    assert set(provider.look([*keys, unknown])) == set(keys)
    assert aws.cloud.count("DescribeInstances") == before + 1


def test_first_launch_is_what_counts_not_the_last_start(aws: Amazon) -> None:
    provider = aws.provider()
    order = make_order(provider)
    provider.create(order)
    began = aws.clock()
    (machine,) = aws.cloud.machines
    machine.moto.launch_time = machine.moto.launch_time.replace(year=2090)
    (vm,) = swept(provider, lambda page: page.kind is Kind.INSTANCE)
    assert vm.created_at == began


def test_a_guest_that_switches_itself_off_is_no_kill(aws: Amazon) -> None:
    provider = aws.provider()
    ends = []
    for end in ("power_off", "end"):
        order = make_order(provider)
        provider.create(order)
        getattr(aws.cloud.of(order.instance)[0], end)()
        seen = look(provider, order)
        assert seen is not None
        ends.append((seen.power, seen.self_ended, seen.preempted))
    assert ends == [(Power.DEAD, True, False), (Power.DEAD, False, False)]


def test_a_sweep_shows_every_kind_in_each_region_used(aws: Amazon) -> None:
    far = "us-east-2"
    far_site = aws.cloud.furnish(far)
    elsewhere = aws.provider(
        region=far,
        image=far_site.image,
        subnets=far_site.subnets,
        security_groups=(far_site.security_group,),
    )
    elsewhere.create(make_order(elsewhere))
    provider = aws.provider(used=(far,), spot="only")
    order = make_order(provider)
    provider.create(order)
    kinds = Counter((r.ref.scope.place, r.ref.kind) for r in swept(provider))
    assert kinds == {
        (REGION, Kind.INSTANCE): 1,
        (REGION, Kind.DISK): 1,
        (REGION, Kind.INTERFACE): 1,
        (REGION, Kind.SPOT_REQUEST): 1,
        (far, Kind.INSTANCE): 1,
        (far, Kind.DISK): 1,
        (far, Kind.INTERFACE): 1,
    }
    assert {scope.place for scope in provider.scopes} == {REGION, far}
    ended = {(p.scope.place, p.kind) for p in provider.sweep() if not p.more and not p.error}
    assert len(ended) == 2 * len(KINDS)


def test_a_machine_without_tags_is_seen_to_be_near(aws: Amazon) -> None:
    machine = aws.plant()
    provider = aws.provider()
    (vm,) = [r for page in provider.sweep() for r in page.resources if r.ref.id == machine.id]
    assert vm.near == f"security group {aws.site.security_group}"
    other = aws.provider(security_groups=("sg-0123456789abcdef0",))
    (vm,) = [r for page in other.sweep() for r in page.resources if r.ref.id == machine.id]
    assert vm.near == f"image {aws.site.image}"


# --- ending --------------------------------------------------------------------------------------


def test_a_protected_machine_holds_up_no_other_and_dies_too(aws: Amazon) -> None:
    provider, refs = fleet(aws, 7)
    aws.cloud.by_id[refs[3].id].protected = True
    unknown = refs[0]._replace(id="i-0123456789abcdef0")
    outcomes = provider.delete([*refs, unknown])
    assert {outcomes[ref].fate for ref in refs} == {Fate.ACCEPTED}
    assert outcomes[unknown].fate is Fate.MISSING
    assert aws.cloud.alive == []
    assert aws.cloud.count("ModifyInstanceAttribute") == 1


def test_what_hangs_in_shutting_down_is_forced_after_ten_minutes(aws: Amazon) -> None:
    provider, (ref, other) = fleet(aws, 2)
    aws.cloud.by_id[ref.id].stuck = True
    provider.delete([ref])
    aws.clock.advance(599)
    provider.delete([ref, other], force=True)
    assert aws.cloud.by_id[ref.id].state == "shutting-down"
    assert aws.cloud.by_id[other.id].state == "terminated"
    aws.clock.advance(1)
    assert provider.delete([ref], force=True)[ref].fate is Fate.ACCEPTED
    assert aws.cloud.by_id[ref.id].state == "terminated"


def test_what_is_left_of_a_vm_is_deleted_by_kind(aws: Amazon) -> None:
    provider = aws.provider(spot="only")
    order = make_order(provider)
    ref = provider.create(order)
    (machine,) = aws.cloud.machines
    backend = machine.backend
    for device in machine.moto.block_device_mapping.values():
        device.delete_on_termination = False
    for nic in machine.moto.nics.values():
        nic.delete_on_termination = False
    address = backend.allocate_address("vpc", tags=tags_of(order))
    snapshot = backend.create_snapshot(next(iter(backend.volumes)), "left")
    snapshot.add_tags(tags_of(order))
    builders = tags_of(replace(order, role=Role.IMAGE))
    backend.create_key_pair("left", "ed25519", builders)
    backend.create_security_group("left", "left", tags=builders)
    backend.create_security_group("users", "the user's own", tags=tags_of(order))
    mark = {OWNER: INSTALLATION, FINISH_BY: str(int(order.deadline))}
    aws.cloud.image(REGION, "left", tags=mark)
    aws.cloud.image(REGION, "lasting", tags={OWNER: INSTALLATION})
    refs = [r.ref for r in swept(provider) if r.ref != ref]
    assert {r.kind for r in refs} == KINDS - {Kind.INSTANCE}
    disk = next(r for r in refs if r.kind is Kind.DISK)
    assert provider.delete([disk])[disk].fate is Fate.FAILED  # in use
    provider.delete([ref])
    for request in backend.spot_instance_requests.values():
        request.state = "active"  # one that nobody closed
    assert address.allocation_id in {r.id for r in refs}
    refs = [r.ref for r in swept(provider)]
    outcomes = provider.delete(refs)
    assert {outcome.fate for outcome in outcomes.values()} == {Fate.ACCEPTED}
    assert swept(provider) == []
    again = provider.delete(refs)
    # EC2 tells nobody that there is no such key.
    assert {o.fate for ref, o in again.items() if ref.kind is not Kind.KEY} == {Fate.MISSING}


def test_an_image_takes_along_no_snapshot_of_anybody_else(aws: Amazon) -> None:
    backend = aws.cloud.backend(REGION)
    mark = {OWNER: INSTALLATION, FINISH_BY: "1"}
    theirs = {OWNER: "00000000-0000-4000-8000-00000000000f", FINISH_BY: "1"}
    amis = [backend.amis[aws.cloud.image(REGION, f"left-{n}", tags=mark)] for n in range(4)]
    tags = [mark, {}, {}, theirs]
    about = ["", f"Created by CreateImage(i-1) for {amis[1].id}", "the user's own", ""]
    for ami, tag, text in zip(amis, tags, about, strict=True):
        ami.ebs_snapshot.description = text
        ami.ebs_snapshot.add_tags(tag)
    refs = [r.ref for r in swept(aws.provider()) if r.ref.kind is Kind.IMAGE]
    assert len(refs) == 4
    assert {outcome.fate for outcome in aws.provider().delete(refs).values()} == {Fate.ACCEPTED}
    assert [ami.ebs_snapshot.id in backend.snapshots for ami in amis] == [False, False, True, True]


def test_a_marked_snapshot_is_left_once_no_image_has_it(aws: Amazon) -> None:
    backend = aws.cloud.backend(REGION)
    mark = {OWNER: INSTALLATION, FINISH_BY: "1"}
    amis = [backend.amis[aws.cloud.image(REGION, f"made-{n}")] for n in range(2)]
    for ami in amis:
        ami.ebs_snapshot.add_tags(mark)
    assert swept(aws.provider()) == []
    backend.deregister_image(amis[1].id)
    (leftover,) = swept(aws.provider())
    assert (leftover.ref.kind, leftover.ref.id) == (Kind.SNAPSHOT, amis[1].ebs_snapshot.id)
    assert (leftover.role, leftover.expires_at) == (Role.IMAGE, 1.0)


def test_no_build_gets_an_image_that_is_not_finished(aws: Amazon) -> None:
    """It may be deleted at any moment."""
    made = aws.cloud.image(REGION, "vmrunner-newest", tags={OWNER: INSTALLATION, FINISH_BY: "1"})
    provider = aws.provider(image=ImageChoice(name="*"))
    assert provider.catalog.image().id == aws.site.image
    assert provider.catalog.image(made).id == made  # whoever names it, means it


def test_deleting_five_hundred_takes_five_calls(aws: Amazon) -> None:
    provider, (ref,) = fleet(aws, 1)
    (machine,) = aws.cloud.machines
    before = aws.cloud.count("TerminateInstances")
    refs = [ref._replace(id=f"i-{n:017x}") for n in range(500)]
    for other in refs:  # all of them the one machine, under another name
        aws.cloud.by_id[other.id] = machine
    outcomes = provider.delete(refs)
    assert {outcome.fate for outcome in outcomes.values()} == {Fate.ACCEPTED}
    assert aws.cloud.count("TerminateInstances") == before + 5


def test_another_account_or_region_is_not_touched(aws: Amazon) -> None:
    provider, (ref,) = fleet(aws, 1)
    for scope in (
        ref.scope._replace(account="210987654321"),
        ref.scope._replace(place="sa-east-1"),
    ):
        outcomes = provider.delete([ref._replace(scope=scope)])
        assert outcomes[ref._replace(scope=scope)].fate is Fate.FAILED
        assert provider.look([Key(scope, "vm-x", ref.id)]) == {}
    assert aws.cloud.count("TerminateInstances") == 0


def test_a_console(aws: Amazon) -> None:
    provider, (ref,) = fleet(aws, 1)
    assert "Linux version" in provider.console(ref)
    assert provider.console(ref._replace(scope=ref.scope._replace(account="1"))) == ""
