"""The end of `image build --provider aws` that is not the end of its image: an AMI that Packer was
broken off waiting for, which has no tags yet; and a cloud that answers late."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from moto.ec2.models.amis import Ami
from vmrunner_localclouds.ec2 import INTERNAL, LOST_ANSWER, THROTTLED

from tests.support import image_cli as imageshell
from tests.support.ec2 import INSTALLATION, REGION, Amazon
from tests.support.ec2 import aws as aws  # the fixture
from tests.support.fake_packer import Packer
from tests.support.fake_packer import packer as packer  # the fixture
from tests.support.image_cli import Cli
from tests.support.image_cli import cli as cli  # the fixture
from tests.support.image_cli import config as config  # the fixture
from vmrunner.images.cloud import builder
from vmrunner.images.cloud import packer as program
from vmrunner.providers.port_images import FINISH_BY, IMAGE, OWNER

BUILD = ("image", "build", "--provider", "aws")


@pytest.fixture
def pending(aws: Amazon, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Of AMIs that are pending the cloud does not say what they consist of; makes all of Packer's
    so."""
    whole = Ami.block_device_mappings.fget
    assert whole is not None

    def mappings(ami: Ami) -> list[dict[str, Any]]:
        mappings_told: list[dict[str, Any]] = whole(ami)
        if ami.state == "pending":
            for mapping in mappings_told:
                del mapping["Ebs"]["SnapshotId"]
        return mappings_told

    monkeypatch.setattr(Ami, "block_device_mappings", property(mappings))

    def make() -> None:
        for ami in made(aws):
            ami.state = "pending"

    return make


def made(aws: Amazon) -> list[Any]:
    """The AMIs that are not the site's own."""
    amis = aws.cloud.backend(REGION).amis
    return [ami for ami in amis.values() if ami.id != aws.site.image]


def snapshots(aws: Amazon) -> set[str]:
    """Of Packer's AMIs, those that are gone among them."""
    found = aws.cloud.backend(REGION).snapshots.values()
    return {s.id for s in found if "CreateImage" in s.description}


def waiting(config: Path, packer: Packer) -> subprocess.Popen[bytes]:
    return imageshell.started(config, BUILD, lambda: packer.waits)


def the_image(cli: Cli) -> dict[str, Any]:
    (image,) = cli.images()
    return image


def nothing_is_left(aws: Amazon, cli: Cli) -> None:
    assert (made(aws), snapshots(aws), aws.cloud.alive) == ([], set(), [])
    image = the_image(cli)
    assert (image["state"], image["ref"]) == ("failed", None)
    assert image["builder_gone_at"] is not None


@pytest.mark.parametrize("mode", ["waits", "leaves"])
def test_ctrl_c_while_packer_waits_for_its_ami(
    aws: Amazon, config: Path, cli: Cli, packer: Packer, pending: Callable[[], None], mode: str
) -> None:
    packer.does(mode)
    process = waiting(config, packer)
    pending()
    assert len(snapshots(aws)) == 1
    imageshell.interrupted(process)
    nothing_is_left(aws, cli)
    assert the_image(cli)["message"] == "interrupted"


def test_kill_9_while_packer_waits_for_its_ami(
    aws: Amazon, config: Path, cli: Cli, packer: Packer, pending: Callable[[], None]
) -> None:
    packer.does("leaves")
    process = waiting(config, packer)
    pending()
    imageshell.killed(process, packer)
    cli("reap")
    assert len(made(aws)) == 1  # it may be being made, for all that a sweep knows
    aws.clock.advance(3700)
    cli("reap")
    cli("reap")
    nothing_is_left(aws, cli)


def test_a_timeout_while_packer_waits_for_its_ami(
    aws: Amazon, cli: Cli, packer: Packer, monkeypatch: pytest.MonkeyPatch
) -> None:
    packer.does("waits")
    run = program.run
    monkeypatch.setattr(
        program, "run", lambda spec, **options: run(spec, **options | {"timeout": 12.0})
    )
    done = cli(*BUILD)
    assert (done.code, b"not done after 12 s" in done.err) == (1, True), done.err
    assert packer.waits
    nothing_is_left(aws, cli)


def killed(aws: Amazon, config: Path, packer: Packer) -> Any:
    """The AMI of a build that was killed, past its deadline."""
    packer.does("leaves")
    process = waiting(config, packer)
    imageshell.killed(process, packer)
    aws.clock.advance(3700)
    (ami,) = made(aws)
    return ami


def test_an_ami_without_visible_snapshots_keeps_its_row_open(
    aws: Amazon, config: Path, cli: Cli, packer: Packer, pending: Callable[[], None]
) -> None:
    ami = killed(aws, config, packer)
    pending()
    shelf = aws.cloud.backend(REGION).snapshots
    hidden = shelf.pop(ami.ebs_snapshot.id)
    cli("reap")
    done = cli("reap")
    assert b"its snapshots do not show yet" in done.err
    assert made(aws) == [ami]
    assert the_image(cli)["builder_gone_at"] is None
    shelf[hidden.id] = hidden
    cli("reap")
    nothing_is_left(aws, cli)


def test_a_stuck_snapshot_is_retried_once_its_ami_is_gone(
    aws: Amazon, config: Path, cli: Cli, packer: Packer
) -> None:
    ami = killed(aws, config, packer)
    aws.cloud.faults.deny("DeleteSnapshot")
    cli("reap")
    done = cli("reap")
    assert (made(aws), ami.ebs_snapshot.id.encode() in done.err) == ([], True), done.err
    image = the_image(cli)
    assert (image["ref"], image["snapshots"]) == (ami.id, [ami.ebs_snapshot.id])
    assert image["builder_gone_at"] is None
    aws.cloud.faults.allow("DeleteSnapshot")
    cli("reap")
    nothing_is_left(aws, cli)


@pytest.mark.parametrize(
    "tags",
    [{OWNER: "00000000-0000-4000-8000-00000000000f"}, {OWNER: INSTALLATION, IMAGE: "im-another"}],
    ids=["another-installation", "another-build"],
)
def test_an_ami_of_that_name_that_another_made_stays(
    aws: Amazon, config: Path, cli: Cli, packer: Packer, tags: dict[str, str]
) -> None:
    ami = killed(aws, config, packer)
    ami.add_tags(tags)
    cli("reap")
    cli("reap")
    assert made(aws) == [ami]
    assert snapshots(aws) == {ami.ebs_snapshot.id}
    image = the_image(cli)
    assert (image["state"], image["builder_gone_at"] is None) == ("failed", False)


def whole(aws: Amazon, config: Path, cli: Cli, packer: Packer) -> Any:
    """The AMI that Packer made while nobody waited for it any more, and whose row is lost."""
    packer.does("leaves")
    imageshell.killed(waiting(config, packer), packer)
    (ami,) = made(aws)
    tags = packer.variables["image_tags"]
    ami.add_tags(tags)
    ami.ebs_snapshot.add_tags(tags)
    imageshell.lose_ledger()
    return ami


def test_an_ami_without_a_row_ends_with_its_snapshots(
    aws: Amazon, config: Path, cli: Cli, packer: Packer
) -> None:
    ami = whole(aws, config, cli, packer)
    aws.clock.advance(3600 + 800)
    cli("reap")
    assert made(aws) == [ami]
    aws.clock.advance(200)
    report = cli("audit", "-o", "json")
    assert (report.code, ami.id in {line["ref"] for line in report.items}) == (7, True)
    cli("reap")
    assert (made(aws), snapshots(aws)) == ([], set())
    assert cli("audit").code == 0


def test_an_image_that_nobody_may_finish_is_told_and_ends(
    aws: Amazon, cli: Cli, packer: Packer
) -> None:
    """By a policy of before there was a mark. It is no excuse for what stays for ever."""
    aws.cloud.faults.deny("DeleteTags")
    done = cli(*BUILD)
    assert (done.code, b"DeleteTags" in done.err) == (1, True), done.err
    assert the_image(cli)["state"] == "building"
    aws.clock.advance(3600 + 800)
    cli("reap")
    assert len(made(aws)) == 1
    aws.clock.advance(200)
    for _ in range(2):
        cli("reap")
    nothing_is_left(aws, cli)
    assert "DeleteTags" in the_image(cli)["message"]


def test_snapshots_that_outlive_their_ami_are_swept(
    aws: Amazon, config: Path, cli: Cli, packer: Packer
) -> None:
    """EC2 may call them in use for a while; and whoever deletes may die between the two calls."""
    ami = whole(aws, config, cli, packer)
    aws.clock.advance(3600 + 1000)
    aws.cloud.faults.deny("DeleteSnapshot")
    cli("reap")
    assert (made(aws), snapshots(aws)) == ([], {ami.ebs_snapshot.id})
    report = cli("audit", "-o", "json")
    assert (report.code, ami.ebs_snapshot.id in {line["ref"] for line in report.items}) == (7, True)
    aws.cloud.faults.allow("DeleteSnapshot")
    cli("reap")
    assert snapshots(aws) == set()
    assert cli("audit").code == 0


def test_an_ami_without_a_row_that_was_promoted_stays(
    aws: Amazon, config: Path, cli: Cli, packer: Packer
) -> None:
    ami = whole(aws, config, cli, packer)
    assert cli("image", "promote", ami.id, "--provider", "aws").code == 0
    aws.clock.advance(86_400)
    cli("reap")
    cli("reap")
    assert (made(aws), snapshots(aws)) == ([ami], {ami.ebs_snapshot.id})
    for marked in (ami, ami.ebs_snapshot):
        assert FINISH_BY not in {tag["key"] for tag in marked.get_tags()}


# --- a cloud that answers late -------------------------------------------------------------------


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What `image build` slept for while it looked for its image, in no time."""
    found: list[float] = []
    build = builder.build
    monkeypatch.setattr(builder, "build", lambda *a, **k: build(*a, **k, sleep=found.append))
    return found


@pytest.mark.parametrize("trouble", [THROTTLED, LOST_ANSWER])
def test_an_image_not_visible_at_once_is_asked_for_again(
    aws: Amazon, cli: Cli, packer: Packer, slept: list[float], trouble: Any
) -> None:
    aws.cloud.faults.on_request = late(aws, 4, trouble)
    done = cli(*BUILD)
    assert done.code == 0, done.err
    assert the_image(cli)["state"] == "ready"
    assert slept


def test_an_image_that_stays_invisible_is_left_to_the_sweep(
    aws: Amazon, cli: Cli, packer: Packer, slept: list[float]
) -> None:
    aws.cloud.faults.on_request = late(aws, 10_000, INTERNAL)
    done = cli(*BUILD)
    assert done.code == 1
    (ami,) = made(aws)
    assert ami.id.encode() in done.err
    assert b"vmrunner reap" in done.err
    assert sum(slept) >= 60
    image = the_image(cli)
    assert (image["state"], image["builder_gone_at"]) == ("building", None)
    aws.cloud.faults.on_request = None
    aws.clock.advance(3700)
    cli("reap")
    image = the_image(cli)
    assert (image["state"], image["ref"]) == ("ready", ami.id)
    aws.clock.advance(900)
    cli("reap")
    assert the_image(cli)["builder_gone_at"] is not None
    assert made(aws) == [ami]


def test_ctrl_c_during_a_retry_does_not_fail_the_image(
    aws: Amazon, cli: Cli, packer: Packer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    build = builder.build
    monkeypatch.setattr(builder, "build", lambda *a, **k: build(*a, **k, sleep=interrupted))
    aws.cloud.faults.on_request = late(aws, 2, INTERNAL)
    assert cli(*BUILD).code == 130
    assert the_image(cli)["state"] == "building"
    assert len(made(aws)) == 1


def late(aws: Amazon, times: int, trouble: Any) -> Callable[[Any], Any]:
    """The first looks at a whole image of Packer's, by its id, after Packer's own."""
    times_left = iter(range(times))

    def plan(request: Any) -> Any:
        mine = any(ami.id in str(request.params) and ami.get_tags() for ami in made(aws))
        asks = mine and request.action == "DescribeImages"
        return trouble if asks and next(times_left, None) is not None else None

    return plan
