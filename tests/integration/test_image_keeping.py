"""Which image builds get, and which go: `vmrunner image promote|gc` at the local EC2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.ec2 import INSTALLATION, REGION, Amazon, make_order
from tests.support.ec2 import aws as aws  # the fixture
from tests.support.image_cli import Cli, configure, spoil_builds, wait_for
from tests.support.image_cli import cli as cli  # the fixture
from tests.support.image_cli import config as config  # the fixture
from vmrunner.images.recipe import Inputs, supervisor_hash
from vmrunner.model import Spec
from vmrunner.providers.ec2.options import ImageChoice

FOREIGN = "00000000-0000-4000-8000-00000000000f"
DAY = 86_400.0


def tags(installation: str = INSTALLATION, **more: str) -> dict[str, str]:
    values = {"image-of": installation, "recipe": "default", "supervisor": "x"} | more
    return {f"vmrunner:{key}": value for key, value in values.items()}


def made(aws: Amazon, name: str, installation: str = INSTALLATION, **more: str) -> str:
    """An image like Packer's, a day after whatever was before."""
    aws.clock.advance(DAY)
    tags_of = tags(installation, **more)
    image = aws.cloud.image(REGION, f"vmrunner-default-{name}", tags=tags_of)
    aws.cloud.backend(REGION).amis[image].ebs_snapshot.add_tags(tags_of)
    return image


def chosen(aws: Amazon) -> str:
    """What a build gets that names none."""
    choice = ImageChoice(name="vmrunner-default-*")
    return aws.provider(image=choice).catalog.image().id


def plan(cli: Cli, *argv: str, code: int = 0) -> dict[str, dict[str, Any]]:
    done = cli("image", "gc", "--provider", "aws", *argv, "-o", "json")
    assert done.code == code, done.err
    return {item["ref"]: item for item in done.items}


def test_a_candidate_is_not_taken_once_any_was_promoted(aws: Amazon, cli: Cli) -> None:
    first = made(aws, "1")
    assert chosen(aws) == first
    second = made(aws, "2")
    assert chosen(aws) == second  # nothing was promoted yet: the newest
    assert cli("image", "promote", first, "--provider", "aws").code == 0
    assert chosen(aws) == first
    third = made(aws, "3")
    assert chosen(aws) == first
    assert cli("image", "promote", third, "--provider", "aws").code == 0
    assert chosen(aws) == third
    rollback = cli("image", "promote", second, "--provider", "aws")
    assert (rollback.code, chosen(aws)) == (0, second)
    backend = aws.cloud.backend(REGION)
    promoted = [i for i in backend.amis if "vmrunner:promoted" in backend.tags.get(i, {})]
    assert promoted == [second]


def test_a_promotion_that_was_broken_off_half_way_is_one(aws: Amazon, cli: Cli) -> None:
    """Tagged, and the tag not yet taken from the one before."""
    first, second = made(aws, "1"), made(aws, "2")
    assert cli("image", "promote", second, "--provider", "aws").code == 0
    aws.clock.advance(60)
    aws.cloud.faults.deny("DeleteTags")
    assert cli("image", "promote", first, "--provider", "aws").code == 4
    assert chosen(aws) == first


def test_what_is_not_ours_is_not_promoted(aws: Amazon, cli: Cli) -> None:
    foreign = made(aws, "1", FOREIGN)
    for word, code, message in (
        (foreign, 5, f"is made by installation {FOREIGN}"),
        (aws.site.image, 5, "is not ours"),
        ("ami-0123456789abcdef0", 3, "there is no image"),
    ):
        done = cli("image", "promote", word, "--provider", "aws")
        assert (done.code, message in done.err.decode()) == (code, True), done.err
    assert cli("image", "promote", "im-nosuch").code == 3


def test_another_versions_supervisor_is_warned_of(aws: Amazon, cli: Cli) -> None:
    old = made(aws, "1")
    assert b"supervisor of another version" in cli("image", "promote", old, "--provider", "aws").err
    new = made(aws, "2", supervisor=supervisor_hash(Inputs.read()))
    assert b"warning" not in cli("image", "promote", new, "--provider", "aws").err


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ('"ami-0123456789abcdef0"', "is one image, whatever is promoted"),
        ('"mine-*"', "does not choose"),
        ('{ owner = "self", tags = { team = "x" } }', "does not choose"),
        ('{ owner = "amazon", name = "vmrunner-*" }', "does not choose"),
    ],
)
def test_a_provider_that_would_not_choose_it_is_told(
    aws: Amazon, home: Path, cli: Cli, image: str, message: str
) -> None:
    first = made(aws, "1")
    configure(home, aws, image=image)
    done = cli("image", "promote", first, "--provider", "aws")
    assert (done.code, message in done.err.decode()) == (2, True), done.err
    assert "providers.aws.image" in done.err.decode()
    assert aws.cloud.count("CreateTags") == 0


def test_old_images_go_with_snapshots_and_needed_ones_stay(aws: Amazon, cli: Cli) -> None:
    backend = aws.cloud.backend(REGION)
    foreign = made(aws, "0", FOREIGN)
    used = made(aws, "1")
    promoted = made(aws, "2")
    old = [made(aws, "3"), made(aws, "4")]
    other = made(aws, "5", recipe="python")
    new = [made(aws, "6"), made(aws, "7")]
    provider = aws.provider(image=used)
    provider.create(make_order(provider, Spec(image=used)))
    assert cli("image", "promote", promoted, "--provider", "aws").code == 0
    snapshots = {image: backend.amis[image].ebs_snapshot.id for image in old}
    before = dict(backend.amis)
    lines = plan(cli, "--keep", "2", "--dry-run")
    assert backend.amis == before
    assert {ref: item["why"] for ref, item in lines.items()} == {
        used: "in use",
        promoted: "promoted",
        **dict.fromkeys(old, "old"),
        other: "newest",
        **dict.fromkeys(new, "newest"),
    }
    assert not any(item["removed"] for item in lines.values())
    done = plan(cli, "--keep", "2")
    assert {ref for ref, item in done.items() if item["removed"]} == set(old)
    assert set(before) - set(backend.amis) == set(old)
    assert not set(snapshots.values()) & set(backend.snapshots)
    assert foreign in backend.amis
    assert set(plan(cli, "--keep", "2")) == set(lines) - set(old)


def test_a_snapshot_that_stays_is_told_and_tried_again(aws: Amazon, cli: Cli) -> None:
    backend = aws.cloud.backend(REGION)
    old = made(aws, "1")
    snapshot = backend.amis[old].ebs_snapshot.id
    made(aws, "2")
    foreign = made(aws, "0", FOREIGN)
    kept = backend.amis.pop(foreign).ebs_snapshot.id  # whose image another deregistered
    aws.cloud.faults.deny("DeleteSnapshot")
    done = plan(cli, "--keep", "1", code=7)
    assert done[old]["removed"]
    assert snapshot in done[old]["trouble"]
    assert old not in backend.amis
    aws.cloud.faults.denied.clear()
    assert snapshot in backend.snapshots
    plan(cli, "--keep", "1")
    assert snapshot not in backend.snapshots
    assert kept in backend.snapshots


def test_an_image_that_cannot_be_deleted_holds_up_no_other(aws: Amazon, cli: Cli) -> None:
    old, _ = made(aws, "1"), made(aws, "2")
    aws.cloud.faults.deny("DeregisterImage")
    done = plan(cli, "--keep", "1", code=7)
    assert (done[old]["removed"], "DeregisterImage" in done[old]["trouble"]) == (False, True)


def test_nothing_is_deleted_where_not_all_can_be_read(aws: Amazon, cli: Cli) -> None:
    made(aws, "1")
    made(aws, "2")
    aws.cloud.faults.deny("DescribeInstances")
    assert cli("image", "gc", "--provider", "aws", "--keep", "0").code == 4
    assert aws.cloud.count("DeregisterImage") == 0


def test_what_the_configuration_names_stays(aws: Amazon, home: Path, cli: Cli) -> None:
    named, _ = made(aws, "1"), made(aws, "2")
    configure(home, aws, image=f'"{named}"')
    assert plan(cli, "--keep", "0", "--dry-run")[named]["why"] == "in use"


def beside(home: Path, aws: Amazon, **more: str) -> None:
    """Another provider of the same kind."""
    values = {"region": f'"{REGION}"', "endpoint_url": f'"{aws.cloud.url}"'} | more
    with (home / "vmrunner.toml").open("a") as file:
        file.write('[providers.pinned]\nkind = "ec2"\n')
        file.writelines(f"{key} = {value}\n" for key, value in values.items())


def test_what_another_provider_is_set_to_use_stays(aws: Amazon, home: Path, cli: Cli) -> None:
    pinned, named, old = made(aws, "1"), made(aws, "2"), made(aws, "3")
    assert plan(cli, "--keep", "0", "--dry-run")[pinned]["why"] == "old"
    beside(home, aws, image=f'"{pinned}"')
    with (home / "vmrunner.toml").open("a") as file:
        file.write(
            f'[providers.named]\nkind = "ec2"\nregion = "{REGION}"\n'
            f'endpoint_url = "{aws.cloud.url}"\nimage = "vmrunner-default-2"\n'
        )
    assert cli("image", "promote", made(aws, "4"), "--provider", "aws").code == 0
    done = plan(cli, "--keep", "0")
    assert (done[pinned]["why"], done[named]["why"]) == ("in use", "in use")
    assert {ref for ref, item in done.items() if item["removed"]} == {old}
    assert {pinned, named} <= aws.cloud.backend(REGION).amis.keys()


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"scheduler_role": '"nobody"'}, 1),  # it cannot be opened
        ({"endpoint_url": '"http://127.0.0.1:9"'}, 1),  # it cannot be asked
        ({"profile": '"nobody"'}, 4),  # nobody knows who it is
    ],
)
def test_nothing_is_deleted_where_another_provider_cannot_be_asked(
    aws: Amazon, home: Path, cli: Cli, more: dict[str, str], code: int
) -> None:
    made(aws, "1")
    made(aws, "2")
    beside(home, aws, **more)
    done = cli("image", "gc", "--provider", "aws", "--keep", "0")
    assert (done.code, b"providers.pinned" in done.err) == (code, True), done.err
    assert aws.cloud.count("DeregisterImage") == 0


@pytest.mark.parametrize("spelled", ["{ref}", "vmrunner-default-1", "*-1"])
def test_what_a_waiting_build_names_stays(aws: Amazon, cli: Cli, spelled: str) -> None:
    named, old, _ = made(aws, "1"), made(aws, "2"), made(aws, "3")
    wait_for(spelled.format(ref=named))
    lines = plan(cli, "--keep", "1", "--dry-run")
    assert (lines[named]["why"], lines[old]["why"]) == ("in use", "old")


def test_nothing_is_deleted_where_a_row_cannot_be_read(aws: Amazon, cli: Cli) -> None:
    named, _ = made(aws, "1"), made(aws, "2")
    wait_for(named)
    spoil_builds()
    done = cli("image", "gc", "--provider", "aws", "--keep", "0")
    assert (done.code, b"b-1 cannot be read, and may name any image" in done.err) == (1, True), (
        done.err
    )
    assert aws.cloud.count("DeregisterImage") == 0
