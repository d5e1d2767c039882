"""What a real account answers on the first day, where the local one was kinder."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from vmrunner_localclouds.ec2 import RequestFate

from tests.support.ec2 import INSTALLATION, REGION, Amazon, fleet, look, make_order, swept
from tests.support.ec2 import virtual_aws as virtual_aws  # the fixture
from vmrunner.errors import ConfigError, CredentialsRefused, NoCapacity, Uncertain
from vmrunner.model import Fate, Kind, Level, Market, Power, Reason, Spec
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.ec2 import metadata_service
from vmrunner.providers.ec2.client import SEAL
from vmrunner.providers.ec2.provider import Ec2Provider
from vmrunner.providers.port_images import FINISH_BY, OWNER

MAKE: Final = "aws iam create-service-linked-role --aws-service-name spot.amazonaws.com"


def findings(provider: Ec2Provider, check: str) -> list[tuple[Level, str, str]]:
    return [(f.level, f.message, f.fix) for f in provider.check() if f.check == check]


# --- spot ----------------------------------------------------------------------------------------


def test_without_the_spot_role_on_demand_is_next(
    aws: Amazon,
) -> None:
    aws.cloud.spot_role = False
    provider = aws.provider(spot="prefer")
    with pytest.raises(NoCapacity) as caught:
        provider.create(make_order(provider))
    assert MAKE in caught.value.hint
    assert {offer.market for offer in provider.offers(Spec())} == {Market.ON_DEMAND}
    provider.create(make_order(provider))
    aws.cloud.spot_role = True
    aws.clock.advance(120)
    assert provider.offers(Spec())[0].market is Market.SPOT
    only = aws.provider(spot="only")
    aws.cloud.spot_role = False
    with pytest.raises(NoCapacity):
        only.create(make_order(only))
    with pytest.raises(NoCapacity, match=MAKE):
        only.offers(Spec())


def test_doctor_sees_that_spot_has_no_role(aws: Amazon) -> None:
    provider = aws.provider(spot="prefer")
    assert [level for level, *_ in findings(provider, "spot")] == [Level.OK]
    aws.cloud.spot_role = False
    ((level, _, fix),) = findings(provider, "spot")
    assert (level, fix) == (Level.WARNING, MAKE)
    aws.cloud.faults.deny("GetRole")
    ((level, _, fix),) = findings(provider, "spot")
    assert (level, fix) == (Level.WARNING, "allow iam:GetRole to these credentials")
    assert findings(aws.provider(), "spot") == []


# --- an older policy -----------------------------------------------------------------------------


def test_doctor_tells_what_no_sweep_sees(aws: Amazon) -> None:
    provider = aws.provider()
    assert findings(provider, "sweep") == []
    aws.cloud.faults.deny("DescribeImages", "DescribeVolumes")
    found = findings(provider, "sweep")
    assert {level for level, *_ in found} == {Level.WARNING}
    checks = sorted(message.partition(":")[0] for _, message, _ in found)
    assert checks == ["no sweep sees each disk", "no sweep sees each image"]
    assert {fix.rpartition(": ")[2] for *_, fix in found} == {"vmrunner guard policy aws"}


def test_who_may_not_delete_images_deletes_all_else(aws: Amazon) -> None:
    provider = aws.provider()
    vm = provider.create(make_order(provider))
    ami = aws.cloud.image(REGION, "left", tags={OWNER: INSTALLATION, FINISH_BY: "1"})
    image = vm._replace(kind=Kind.IMAGE, id=ami)
    aws.cloud.faults.deny("DeregisterImage", "DeleteSnapshot")
    outcomes = provider.delete([image, vm])
    assert (outcomes[image].fate, outcomes[vm].fate) == (Fate.FAILED, Fate.ACCEPTED)
    assert "UnauthorizedOperation" in str(outcomes[image].error)
    assert image in {resource.ref for resource in swept(provider)}
    aws.cloud.faults.allow("DeregisterImage", "DeleteSnapshot")
    assert provider.delete([image])[image].fate is Fate.ACCEPTED


# --- what an account or a region has -------------------------------------------------------------


def test_a_type_the_region_lacks_is_skipped_with_a_warning(
    aws: Amazon, caplog: pytest.LogCaptureFixture
) -> None:
    aws.cloud.lacking.add("m7i.large")
    provider = aws.provider()
    with caplog.at_level(logging.WARNING):
        assert {offer.machine_type for offer in provider.offers(Spec())} == {"c7i.large"}
    assert f"instance_types: m7i.large: {REGION} has none of these" in caplog.text
    ok, missing = findings(provider, "instance types")
    assert (ok[0], missing[0]) == (Level.OK, Level.WARNING)
    assert "m7i.large" in missing[1]


def test_a_quota_that_the_account_has_not_is_the_default(aws: Amazon) -> None:
    aws.cloud.default_quotas.add("L-1216C47A")
    ((level, text, _),) = findings(aws.provider(), "quota")
    assert (level, text) == (Level.OK, "64 vCPUs at once, standard, on-demand")
    aws.cloud.faults.on_request = lambda request: (
        RequestFate("NoSuchResourceException", 400, "no such quota")
        if request.service == "servicequotas"
        else None
    )
    ((level, _, fix),) = findings(aws.provider(), "quota")
    assert level is Level.WARNING
    assert "L-1216C47A" in fix


def test_an_account_that_is_disabled_is_a_matter_of_credentials(aws: Amazon) -> None:
    provider = aws.provider()
    order = make_order(provider)
    aws.cloud.faults.fail("RunInstances", RequestFate("AccountDisabled", 403, "it is disabled"))
    with pytest.raises(CredentialsRefused):
        provider.create(order)


def test_a_path_in_a_role_hides_no_right_to_kill(
    aws: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session of SSO's tells the role's name and not its path."""
    provider = aws.provider()
    arn = f"arn:aws:sts::{aws.cloud.account}:assumed-role/AWSReservedSSO_dev_0123/somebody"
    caller = provider.identity.caller()._replace(arn=arn)
    monkeypatch.setattr(provider.identity, "caller", lambda: caller)
    aws.cloud.roles.add("aws-reserved/sso.amazonaws.com/AWSReservedSSO_dev_0123")
    assert provider.permissions.simulate().may is True
    aws.cloud.faults.deny("GetRole")
    assert provider.permissions.simulate().may is None


def test_images_are_built_on_what_runs_them(aws: Amazon) -> None:
    from tests.integration.test_guard_deny import WISH

    bench = aws.provider(instance_types=("m7g.large", "m7i.large")).imaging().bench(WISH)
    assert bench.variables["aws_instance_type"] == "m7i.large"
    with pytest.raises(ConfigError, match=r"m7g.large: images are made for x86_64"):
        aws.provider(instance_types=("m7g.large",)).imaging().bench(WISH)


# --- a VM's life ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("Client.InternalError", Reason.CREDENTIALS),
        ("Client.InvalidSnapshot.NotFound", Reason.IMAGE),
        ("Client.VolumeLimitExceeded", Reason.QUOTA),
        ("Server.InternalError", None),
    ],
)
def test_why_a_vm_could_not_be_launched_is_seen(
    aws: Amazon, code: str, reason: Reason | None
) -> None:
    aws.cloud.boot_seconds = 10
    provider = aws.provider()
    order = make_order(provider)
    provider.create(order)
    (machine,) = aws.cloud.machines
    machine.refuse(code)
    seen = look(provider, order)
    assert seen is not None
    assert (seen.power, seen.unfit) == (Power.DEAD, reason)
    assert code in seen.detail


def test_the_console_is_read_now_where_that_can_be(aws: Amazon) -> None:
    provider, (ref,) = fleet(aws, 1)
    assert "Linux version" in provider.console(ref)
    old = aws.provider(instance_types=("m4.large",))
    assert "Linux version" in old.console(old.create(make_order(old)))
    latest = [r.params.get("Latest") for r in aws.cloud.requests if r.action == "GetConsoleOutput"]
    assert latest == ["true", "true", None]


def test_no_step_runs_before_the_metadata_service_is_off(aws: Amazon) -> None:
    aws.cloud.seal_seconds = 3
    provider, (ref,) = fleet(aws, 1)
    machine = aws.cloud.by_id[ref.id]
    for _ in range(2):
        with pytest.raises(Uncertain, match="is pending, not off yet"):
            provider.seal(ref)
        assert machine.metadata
    aws.clock.advance(3)
    provider.seal(ref)
    assert not machine.metadata
    assert aws.cloud.count("ModifyInstanceMetadataOptions") == 1


def test_builds_that_start_at_once_share_looks(
    aws: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DescribeInstances has few tokens: twenty builds do not take one each."""
    provider, refs = fleet(aws, 20)
    service = provider._metadata_service
    client, ordered = service._client, threading.Barrier(len(refs))

    def together(region: str, api: Any, **params: Any) -> Any:
        answer: Any = client(region, api, **params)
        if api is SEAL:
            ordered.wait(20)
        return answer

    monkeypatch.setattr(service, "_client", together)
    before = aws.cloud.count("DescribeInstances")
    with ThreadPoolExecutor(len(refs)) as builds:
        list(builds.map(provider.seal, refs))
    assert not any(aws.cloud.by_id[ref.id].metadata for ref in refs)
    assert aws.cloud.count("DescribeInstances") - before <= len(refs) // 2


def test_a_disrupted_zone_holds_up_no_other_seal(
    aws: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look is for the builds of all zones: it tells what it can before it fails."""
    provider, (seen, hidden) = fleet(aws, 2)
    read = metadata_service.filtered

    def partly(client: Any, region: str, name: str, ids: Sequence[str]) -> Iterator[Any]:
        yield from read(client, region, name, ids)
        raise CallFailed("Unavailable", Uncertain("the zone is disrupted"))

    monkeypatch.setattr(metadata_service, "filtered", partly)
    provider.seal(seen)
    assert not aws.cloud.by_id[seen.id].metadata
    monkeypatch.setattr(metadata_service, "filtered", lambda *_: iter(()))
    with pytest.raises(Uncertain, match="not to be seen, not off yet"):
        provider.seal(hidden)


def test_a_guest_is_not_asked_to_shut_down(aws: Amazon) -> None:
    provider, (ref,) = fleet(aws, 1)
    provider.delete([ref])
    (request,) = [r for r in aws.cloud.requests if r.action == "TerminateInstances"]
    assert (request.params["SkipOsShutdown"], request.params.get("Force")) == ("true", None)


def test_disks_of_others_are_not_listed(aws: Amazon) -> None:
    provider, _ = fleet(aws, 1)
    backend = aws.cloud.backend(REGION)
    theirs = backend.create_volume(size=1, zone_name=f"{REGION}a")
    backend.create_snapshot(theirs.id, "theirs")
    pages = list(provider.sweep())
    listed = [r for page in pages for r in page.resources if r.ref.kind is not Kind.INSTANCE]
    assert {r.tag("installation") for r in listed} == {INSTALLATION}
    assert len(swept(provider)) == 3
