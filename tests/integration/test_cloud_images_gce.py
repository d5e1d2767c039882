"""Images in a project: made by a stand-in for Packer, promoted, and retired, at the local GCE."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support import image_cli as imageshell
from tests.support.fake_packer import UNTAGGED, Packer
from tests.support.fake_packer import packer as packer  # the fixture
from tests.support.gce import INSTALLATION, Google, google, make_order
from tests.support.image_cli import Cli, declared, wait_for
from vmrunner.images.cloud import builder, stage
from vmrunner.images.cloud import packer as program
from vmrunner.ledger import Ledger
from vmrunner.model import Spec
from vmrunner.providers.gce.catalog import GceCatalog

BUILD = ("image", "build", "--provider", "google")
FOREIGN = "00000000-0000-4000-8000-00000000000f"


@pytest.fixture
def gce() -> Iterator[Google]:
    """One that tells the time of this host, for programs that have no other clock."""
    with google() as made:
        made.cloud.skew = time.time() - made.clock()
        yield made


@pytest.fixture
def config(home: Path, gce: Google, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = configure(home, gce)
    monkeypatch.setenv("VMRUNNER_CONFIG", str(file))
    return file


def configure(home: Path, gce: Google, **more: str) -> Path:
    values = {"network": f'"{gce.site.network}"', "subnetwork": f'"{gce.site.subnetwork}"'} | more
    file = home / "vmrunner.toml"
    file.write_text(
        f'installation = "{INSTALLATION}"\ndefault_provider = "google"\n'
        f'[providers.google]\nkind = "gce"\nproject = "{gce.project}"\n'
        f'zones = ["{gce.zone}"]\napi_endpoint = "{gce.cloud.url}"\n'
        + "".join(f"{key} = {value}\n" for key, value in values.items())
    )
    return file


@pytest.fixture
def cli(config: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(capfdbinary)


def made(gce: Google, name: str, installation: str = INSTALLATION, **more: Any) -> str:
    """An image like Packer's, a day after whatever was before; its reference."""
    gce.clock.advance(86_400)
    labels = {"vmrunner-image-of": installation, "vmrunner-recipe": "default"}
    values: dict[str, Any] = {"family": "vmrunner-candidates", "labels": labels} | more
    gce.cloud.image(f"vmrunner-default-{name}", **values)
    return f"projects/{gce.project}/global/images/vmrunner-default-{name}"


def chosen(gce: Google) -> str:
    """What a build gets that names none."""
    provider = gce.provider(image=None)
    return GceCatalog(provider.options, provider.client).image().id


def promote(cli: Cli, ref: str) -> tuple[int, str]:
    done = cli("image", "promote", ref, "--provider", "google")
    return done.code, done.err.decode()


# --- making --------------------------------------------------------------------------------------


def test_an_image_is_made_recorded_and_labelled(gce: Google, cli: Cli, packer: Packer) -> None:
    before = chosen(gce)
    done = cli(*BUILD, "-o", "json")
    assert done.code == 0, done.err
    (image,) = done.items
    shown = gce.cloud.images(gce.project)[image["title"]]
    assert image["ref"] == f"projects/{gce.project}/global/images/{shown['name']}"
    assert (image["state"], image["promoted_at"]) == ("ready", None)
    assert image["builder_gone_at"] is not None
    assert shown["labels"]["vmrunner-image-of"] == INSTALLATION
    assert not {"vmrunner-installation", "vmrunner-role"} & shown["labels"].keys()
    assert shown["family"] == "vmrunner-candidates"
    labels = gce.machine.shown["labels"]
    assert (gce.machine.shown["name"], labels["vmrunner-role"]) == (image["builder"], "image")
    assert labels["vmrunner-installation"] == INSTALLATION
    assert packer.variables["max_run_seconds"] == 3600
    assert packer.variables.keys() <= declared()
    assert gce.cloud.alive == []
    assert gce.cloud.disks == []
    assert chosen(gce) == before  # a candidate
    assert cli("audit").code == 0


def test_ctrl_c_and_a_packer_that_leaves_all_behind(
    gce: Google, config: Path, cli: Cli, packer: Packer
) -> None:
    """Its VM is ended at once, and its disk, which carries no label, by its name."""
    packer.does("deaf")
    process = started(config, gce)
    imageshell.interrupted(process)
    assert gce.cloud.alive == []
    assert gce.cloud.disks == []
    (image,) = cli.images()
    assert (image["state"], image["message"]) == ("failed", "interrupted")
    assert image["builder_gone_at"] is not None


def test_kill_9_leaves_builder_to_deadline_and_disk_to_sweep(
    gce: Google, config: Path, cli: Cli, packer: Packer
) -> None:
    packer.does("deaf")
    process = started(config, gce)
    imageshell.killed(process, packer)
    assert cli("reap", "-o", "json").items == []
    assert len(gce.cloud.alive) == 1
    gce.clock.advance(3700)  # with nothing of ours running, the cloud ends it
    assert gce.cloud.alive == []
    assert len(gce.cloud.disks) == 1
    cli("reap")
    assert gce.cloud.disks == []
    (image,) = cli.images()
    assert image["state"] == "failed"
    assert image["builder_gone_at"] is not None


@pytest.mark.parametrize("mode", ["waits", "leaves"])
def test_an_image_that_packer_was_broken_off_making_goes(
    gce: Google, config: Path, cli: Cli, packer: Packer, mode: str
) -> None:
    """googlecompute leaves what it asked for, ready or not (its step has no clean-up). The labels
    come in the call that makes it, so that no image of ours is ever without them."""
    packer.does(mode)
    before = set(gce.cloud.images(gce.project))
    process = imageshell.started(config, BUILD, lambda: packer.waits)
    (name,) = set(gce.cloud.images(gce.project)) - before
    assert gce.cloud.images(gce.project)[name]["labels"]["vmrunner-image-of"] == INSTALLATION
    imageshell.interrupted(process)
    assert set(gce.cloud.images(gce.project)) == before
    assert gce.cloud.disks == []
    (image,) = cli.images()
    assert (image["state"], image["ref"]) == ("failed", None)


def test_a_killed_packers_image_that_came_to_be_is_recorded(
    gce: Google, config: Path, cli: Cli, packer: Packer
) -> None:
    packer.does("leaves")
    before = set(gce.cloud.images(gce.project))
    process = imageshell.started(config, BUILD, lambda: packer.waits)
    (name,) = set(gce.cloud.images(gce.project)) - before
    shown = gce.cloud.images(gce.project)[name]
    shown["status"] = "PENDING"
    imageshell.killed(process, packer)
    gce.clock.advance(3700)
    cli("reap")
    (image,) = cli.images()
    assert (image["state"], image["builder_gone_at"]) == ("building", None)
    shown["status"] = "READY"
    cli("reap")
    (image,) = cli.images()
    assert (image["state"], image["title"]) == ("ready", name)
    assert name in gce.cloud.images(gce.project)


def test_one_that_stays_unfinished_goes(
    gce: Google, config: Path, cli: Cli, packer: Packer
) -> None:
    packer.does("leaves")
    before = set(gce.cloud.images(gce.project))
    process = imageshell.started(config, BUILD, lambda: packer.waits)
    (name,) = set(gce.cloud.images(gce.project)) - before
    gce.cloud.images(gce.project)[name]["status"] = "FAILED"
    imageshell.killed(process, packer)
    gce.clock.advance(3600 + 1000)
    cli("reap")
    assert set(gce.cloud.images(gce.project)) == before
    assert cli.images()[0]["state"] == "failed"


# --- its builder's deadline ----------------------------------------------------------------------


@pytest.fixture
def virtual(gce: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    """`image build` has no clock but the cloud's."""
    build = builder.build
    given = gce.provider()
    monkeypatch.setattr(builder, "build", lambda *a, **k: build(*a, **k | {"provider": given}))


@pytest.mark.usefixtures("virtual")
def test_the_minutes_that_plugins_take_are_not_the_builders(
    gce: Google, cli: Cli, packer: Packer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cloud's deadline counts from the VM's birth: later than the guest's own timer, 300 s past
    the deadline, it would come to nothing."""
    monkeypatch.setattr(program, "init", lambda **_: gce.clock.advance(400))
    done = cli(*BUILD, "-o", "json")
    assert done.code == 0, done.err
    machine, variables = gce.machine.shown, packer.variables
    deadline = int(machine["labels"]["vmrunner-expires-at"])
    created_at = datetime.fromisoformat(machine["creationTimestamp"]).timestamp()
    ends = created_at + int(machine["scheduling"]["maxRunDuration"]["seconds"])
    assert variables["max_run_seconds"] == 3600
    assert -60 < ends - deadline < 60
    assert deadline - int(variables["created"]) == 3600
    assert f" {deadline + 300} " in packer.runs[-1]["user_data"].replace("'", " ")


@pytest.mark.usefixtures("virtual")
def test_a_builder_that_would_begin_late_is_not_begun(
    gce: Google, cli: Cli, packer: Packer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = stage.fill

    def slowly(*argv: Any) -> str:
        gce.clock.advance(61)
        return fill(*argv)

    monkeypatch.setattr(stage, "fill", slowly)
    done = cli(*BUILD)
    assert (done.code, b"nothing was started" in done.err) == (1, True), done.err
    assert [run["argv"][0] for run in packer.runs] == ["init"]
    assert gce.cloud.machines == []
    assert cli.images() == []


def started(config: Path, gce: Google) -> subprocess.Popen[bytes]:
    """`image build` whose Packer waits for ever."""
    return imageshell.started(config, BUILD, lambda: gce.cloud.alive)


# --- promoting, retiring -------------------------------------------------------------------------


def test_the_family_is_the_promoted_one_and_nothing_else(gce: Google, cli: Cli) -> None:
    first, second = made(gce, "1"), made(gce, "2")
    gce.cloud.images(gce.project)["vmrunner-1"]["family"] = "old"  # the site's own
    assert promote(cli, first)[0] == 0
    assert chosen(gce) == first
    third = made(gce, "3")
    assert chosen(gce) == first
    assert promote(cli, third)[0] == 0
    assert chosen(gce) == third
    assert promote(cli, second)[0] == 0  # a rollback
    assert chosen(gce) == second
    families = {i["name"]: i.get("family") for i in gce.cloud.images(gce.project).values()}
    assert [name for name, family in families.items() if family == "vmrunner"] == [
        second.rpartition("/")[2]
    ]


def test_what_is_not_ours_is_left_alone_and_told(gce: Google, cli: Cli) -> None:
    mine, foreign = made(gce, "1"), made(gce, "2", FOREIGN, family="vmrunner")
    code, err = promote(cli, foreign)
    assert (code, f"is made by installation {FOREIGN}" in err) == (5, True)
    code, err = promote(cli, mine)
    assert (code, "is newer in the family vmrunner" in err) == (2, True), err
    assert gce.cloud.count("images.patch") == 0


def test_a_provider_that_would_not_choose_it_is_told(gce: Google, home: Path, cli: Cli) -> None:
    mine = made(gce, "1")
    configure(home, gce, image='"projects/debian-cloud/global/images/family/debian-13"')
    code, err = promote(cli, mine)
    assert (code, "is no family of this project" in err) == (2, True), err
    configure(home, gce, image='"family/acme"')
    assert promote(cli, mine)[0] == 0
    assert gce.cloud.images(gce.project)["vmrunner-default-1"]["family"] == "acme"


def test_old_images_go_and_all_that_is_needed_stays(gce: Google, cli: Cli, home: Path) -> None:
    foreign = made(gce, "0", FOREIGN)
    used, promoted, old, new = (made(gce, name) for name in "1234")
    gce.cloud.images(gce.project)["vmrunner-1"]["family"] = "old"
    assert promote(cli, promoted)[0] == 0
    provider = gce.provider(image=used)
    provider.create(make_order(provider, Spec(image=used)))
    argv = ("image", "gc", "--provider", "google", "--keep", "1", "-o", "json")
    planned = cli(*argv, "--dry-run")
    assert {item["ref"]: item["why"] for item in planned.items} == {
        used: "in use",
        promoted: "promoted",
        old: "old",
        new: "newest",
    }
    assert gce.cloud.count("images.delete") == 0
    done = cli(*argv)
    assert (done.code, [i["ref"] for i in done.items if i["removed"]]) == (0, [old])
    remaining = {f"projects/{gce.project}/global/images/{n}" for n in gce.cloud.images(gce.project)}
    assert {foreign, used, promoted, new} <= remaining
    assert old not in remaining
    data = home / "data/vmrunner"
    ledger = Ledger.open(f"sqlite:///{data}/ledger.db", data_dir=data)
    assert [action[2:] for action in ledger.actions.latest()] == [
        ("image-gc", "google", "keep 1"),
        ("image-promote", promoted, "google"),
    ]
    ledger.close()


def gc(cli: Cli, *argv: str) -> dict[str, str]:
    """Why each image stays, or goes."""
    done = cli("image", "gc", "--provider", "google", *argv, "-o", "json")
    assert done.code == 0, done.err
    return {item["ref"]: item["why"] for item in done.items}


def test_what_is_in_another_providers_family_stays(gce: Google, home: Path, cli: Cli) -> None:
    theirs, pinned = made(gce, "1", family="acme"), made(gce, "2")
    default, old = made(gce, "3", family="vmrunner"), made(gce, "4")
    configure(home, gce, image='"family/our-own"')
    assert set(gc(cli, "--keep", "0", "--dry-run").values()) == {"old"}
    link = f"https://www.googleapis.com/compute/v1/projects/{gce.project}/global/images/family/acme"
    with (home / "vmrunner.toml").open("a") as file:
        for name, image in (("a", link), ("b", pinned), ("c", "family/vmrunner")):
            file.write(
                f'[providers.{name}]\nkind = "gce"\nproject = "{gce.project}"\n'
                f'api_endpoint = "{gce.cloud.url}"\nimage = "{image}"\n'
            )
    report = gc(cli, "--keep", "0")
    assert report == {theirs: "in use", pinned: "in use", default: "in use", old: "old"}
    assert gce.cloud.count("images.delete") == 1


@pytest.mark.parametrize(
    "spelled",
    [
        "https://www.googleapis.com/compute/v1/projects/{project}/global/images/{name}",
        "projects/{project}/global/images/{name}",
        "projects/123456789012/global/images/{name}",  # a project's number is its name too
        "{name}",
        "family/acme",
        "projects/{project}/global/images/family/acme",
    ],
)
def test_what_a_waiting_build_names_stays(gce: Google, cli: Cli, spelled: str) -> None:
    named, old, _ = made(gce, "1", family="acme"), made(gce, "2"), made(gce, "3")
    wait_for(spelled.format(project=gce.project, name="vmrunner-default-1"))
    report = gc(cli, "--keep", "1", "--dry-run")
    assert (report[named], report[old]) == ("in use", "old")


def test_nothing_is_deleted_while_a_zones_disks_cannot_be_read(gce: Google, cli: Cli) -> None:
    made(gce, "1")
    made(gce, "2")
    away = f"zones/{gce.site.zones[1]}"
    gce.cloud.unreachable.add(away)
    done = cli("image", "gc", "--provider", "google", "--keep", "0")
    assert (done.code, away.encode() in done.err) == (1, True), done.err
    assert gce.cloud.count("images.delete") == 0


def test_a_builder_that_nobody_saw_dead_keeps_its_row_open(
    gce: Google, cli: Cli, packer: Packer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here by another template than ours, whose builder has neither our labels nor our name."""
    monkeypatch.setenv(UNTAGGED, "1")
    done = cli(*BUILD, "-o", "json")
    assert done.code == 0, done.err
    (image,) = done.items
    assert image["builder_gone_at"] is None


def test_old_unlabelled_packer_leftovers_are_told_and_never_deleted(gce: Google, cli: Cli) -> None:
    temporary = "packer-6b084444-84f4-48d5-aad6-1b1f802fda50"
    gce.cloud.disk(gce.zone, temporary)
    gce.cloud.disk(gce.zone, "vm-01k8m3x0avrds9nk6cwea6b0zn")  # a builder's of ours, by its name
    gce.cloud.disk(gce.zone, "packer-of-the-users-own")

    def faults() -> set[tuple[str, str]]:
        return {(s["fault"], s["ref"]) for s in cli("audit", "-o", "json").items}

    gce.clock.advance(3500)
    assert faults() == set()
    gce.clock.advance(120)
    assert faults() == {("untagged", temporary)}
    gce.clock.advance(4 * 3600)
    assert faults() == {("untagged", temporary), ("untagged", "vm-01k8m3x0avrds9nk6cwea6b0zn")}
    assert cli("reap", "-o", "json").items == []
    assert len(gce.cloud.disks) == 3
