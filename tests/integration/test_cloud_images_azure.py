"""Images in a resource group of Azure's: made by a stand-in for Packer, promoted, and retired, at
the local one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vmrunner_localclouds.azure import INTERNAL
from vmrunner_localclouds.azure.resource_ids import DEFINITION, GALLERY, IMAGE, VERSION

from bench.clouds import order
from tests.support import image_cli as imageshell
from tests.support.arm import Arm
from tests.support.arm import azure as local_azure
from tests.support.fake_packer import AZURE, Packer
from tests.support.fake_packer import packer as packer  # the fixture
from tests.support.image_cli import Cli, declared, wait_for
from vmrunner.providers.azure.catalog import AzureCatalog
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.azure.provider import AzureProvider

INSTALLATION = "00000000-0000-4000-8000-000000000001"
BUILD = ("image", "build", "--provider", "azure")
FOREIGN = "00000000-0000-4000-8000-00000000000f"


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Arm]:
    """One that tells the time of this host, for programs that have no other clock."""
    with local_azure() as made:
        made.cloud.skew = time.time() - made.clock()
        monkeypatch.setenv(AZURE, made.cloud.url)
        yield made


@pytest.fixture
def config(home: Path, azure: Arm, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = home / "vmrunner.toml"
    file.write_text(
        f'installation = "{INSTALLATION}"\ndefault_provider = "azure"\n'
        f'[providers.azure]\nkind = "azure"\nsubscription = "{azure.cloud.subscription}"\n'
        f'resource_group = "{azure.group}"\nlocation = "{azure.site.location}"\n'
        f'subnet = "{azure.site.subnet}"\nendpoint = "{azure.cloud.url}"\n'
    )
    monkeypatch.setenv("VMRUNNER_CONFIG", str(file))
    return file


@pytest.fixture
def cli(config: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(capfdbinary)


def images(azure: Arm) -> dict[str, dict[str, Any]]:
    """All of the group, by the names of their rows: managed images and versions in galleries."""
    found = {image["name"]: image for image in azure.cloud.shelf(IMAGE).values()}
    for image in azure.cloud.shelf(VERSION).values():
        tags, name = image.get("tags") or {}, image["id"]
        if "vmrunner:image" in tags:
            day, moment, _ = image["name"].split(".")
            definition = image["id"].split("/")[-3]
            name = f"{definition}-{tags['vmrunner:recipe-hash'][:8]}-{day}{moment:0>6}"
            name += f"-{tags['vmrunner:image'][-6:]}"
        found[name] = image
    return found


def reference(azure: Arm, name: str) -> str:
    """What a sweep calls the version of this name."""
    return str(images(azure)[name]["id"]).lower().partition("/microsoft.compute/")[2]


def made(azure: Arm, name: str, installation: str = INSTALLATION) -> str:
    """An image like Packer's, a day after whatever was before; its reference."""
    azure.clock.advance(86_400)
    tags = {
        "vmrunner:image-of": installation,
        "vmrunner:recipe": "default",
        "vmrunner:created": str(int(azure.cloud.now())),
    }
    shown = azure.cloud.image(azure.group, f"vmrunner-default-{name}", tags=tags)
    return str(shown["id"]).lower()


def provider(azure: Arm, **more: Any) -> AzureProvider:
    """One process's view."""
    options = AzureOptions(
        name="azure",
        installation=INSTALLATION,
        subscription=azure.cloud.subscription,
        resource_group=azure.group,
        location=azure.site.location,
        subnet=azure.site.subnet,
        endpoint=azure.cloud.url,
        **more,
    )
    return AzureProvider(options, elapsed=azure.clock, sleep=azure.clock.sleep)


def chosen(azure: Arm) -> str:
    """What a build gets that names none."""
    made = provider(azure)
    return AzureCatalog(made.options, made.client).image().id.lower()


def started(config: Path, azure: Arm) -> subprocess.Popen[bytes]:
    """`image build` whose Packer waits for ever."""
    return imageshell.started(config, BUILD, lambda: azure.cloud.alive)


# --- making --------------------------------------------------------------------------------------


def test_an_image_is_made_recorded_and_tagged(azure: Arm, cli: Cli, packer: Packer) -> None:
    done = cli(*BUILD, "-o", "json")
    assert done.code == 0, done.err
    (image,) = done.items
    shown = images(azure)[image["title"]]
    assert image["ref"] == shown["id"].lower()
    assert (image["state"], image["promoted_at"]) == ("ready", None)
    assert shown["tags"]["vmrunner:image-of"] == INSTALLATION
    machine = azure.machine
    assert (machine.name, machine.shown["tags"]["vmrunner:role"]) == (image["builder"], "image")
    assert machine.shown["tags"]["vmrunner:installation"] == INSTALLATION
    assert b"vmrunner-deadline" in machine.custom_data
    assert packer.variables["max_run_seconds"] == 3600
    assert packer.variables.keys() <= declared()
    assert (azure.cloud.alive, azure.cloud.remaining) == ([], [])
    assert cli("audit").code == 0

    # Of the builder's death, which is Packer's doing, Azure tells nobody: its deadline closes the
    # row. The plugin gave the image the builder's tags too, which end no image.
    tags = images(azure)[image["title"]]["tags"]
    assert "vmrunner:expires-at" in tags
    assert "vmrunner:finish-by" not in tags
    assert image["builder_gone_at"] is None
    azure.clock.advance(2 * 86_400)
    assert cli("reap", "-o", "json").items == []
    assert cli("vm", "destroy", "--all-expired").code == 0
    assert image["title"] in images(azure)
    (image,) = cli.images()
    assert (image["state"], image["builder_gone_at"] is None) == ("ready", False)


def test_managed_images_are_made_where_the_configuration_says_so(
    azure: Arm, config: Path, cli: Cli, packer: Packer
) -> None:
    config.write_text(f'{config.read_text()}images = "managed"\n')
    done = cli(*BUILD, "-o", "json")
    assert done.code == 0, done.err
    (image,) = done.items
    assert image["title"] in {image["name"] for image in azure.cloud.shelf(IMAGE).values()}
    assert "azure_gallery" not in packer.variables
    assert azure.cloud.count("galleries.put") == 0
    assert cli("image", "promote", image["title"], "--provider", "azure").code == 0
    assert chosen(azure) == image["ref"]


def test_a_version_is_made_promoted_and_retired(azure: Arm, cli: Cli, packer: Packer) -> None:
    (first,) = cli(*BUILD, "-o", "json").items
    (second,) = cli(*BUILD, "-o", "json").items
    shown = images(azure)[second["title"]]
    (gallery,) = [
        resource for at, resource in azure.cloud.shelf(GALLERY).items() if f"{at}/" in second["ref"]
    ]
    (above,) = [
        resource
        for at, resource in azure.cloud.shelf(DEFINITION).items()
        if f"{at}/" in second["ref"]
    ]
    assert "vmrunner:image-of" in gallery["tags"].keys() & above["tags"].keys()
    features = {feature["name"]: feature["value"] for feature in above["properties"]["features"]}
    assert features == {
        "DiskControllerTypes": "SCSI, NVMe",
        "SecurityType": "TrustedLaunchSupported",
    }
    assert above["properties"]["hyperVGeneration"] == "V2"
    (region,) = shown["properties"]["publishingProfile"]["targetRegions"]
    assert (region["name"], region["regionalReplicaCount"]) == ("westeurope", 4)
    assert [azure.cloud.count(f"{kind}.put") for kind in ("galleries", "definitions")] == [1, 1]
    assert cli("image", "promote", second["title"], "--provider", "azure").code == 0
    assert chosen(azure) == second["ref"]
    assert second["title"] in {image["title"] for image in cli.images()}
    managed = made(azure, "managed")
    argv = ("image", "gc", "--provider", "azure", "--keep", "1", "-o", "json")
    why = {item["ref"]: item["why"] for item in cli(*argv).items}
    assert why == {managed: "newest", second["ref"]: "promoted", first["ref"]: "old"}
    assert first["title"] not in images(azure)
    assert second["title"] in images(azure)


def test_a_version_boots_sizes_that_have_nvme_alone(azure: Arm, cli: Cli, packer: Packer) -> None:
    (image,) = cli(*BUILD, "-o", "json").items
    assert cli("image", "promote", image["ref"], "--provider", "azure").code == 0
    for size in ("Standard_D2s_v6", "Standard_D2as_v7"):
        maker = provider(azure, machine_types=(size,))
        maker.create(order(maker, INSTALLATION))
        assert azure.cloud.machines[-1].size == size
    assert maker.imaging().in_use() == {image["ref"]}


def test_a_builder_may_be_of_a_size_with_nvme(
    azure: Arm, config: Path, cli: Cli, packer: Packer
) -> None:
    sizes = 'machine_types = ["Standard_D2s_v6", "Standard_D2s_v5"]\n'
    config.write_text(config.read_text() + sizes)
    assert cli(*BUILD).code == 0
    assert (azure.machine.size, packer.variables["azure_disk_controller"]) == (
        "Standard_D2s_v6",
        "NVMe",
    )
    config.write_text(f'{config.read_text()}images = "managed"\n')
    assert cli(*BUILD).code == 0
    assert azure.cloud.machines[-1].size == "Standard_D2s_v5"  # the other's image boots nowhere


def test_nothing_is_started_where_no_gallery_may_be_made(
    azure: Arm, cli: Cli, packer: Packer
) -> None:
    azure.cloud.faults.deny("galleries.put")
    done = cli(*BUILD)
    assert (done.code != 0, "Microsoft.Compute/galleries/write" in done.err.decode()) == (
        True,
        True,
    )
    assert azure.cloud.machines == []
    assert cli.images() == []


def test_ctrl_c_and_a_packer_that_leaves_all_behind(
    azure: Arm, config: Path, cli: Cli, packer: Packer
) -> None:
    packer.does("deaf")
    imageshell.interrupted(started(config, azure))
    assert azure.cloud.alive == []
    (image,) = cli.images()
    assert (image["state"], image["message"]) == ("failed", "interrupted")
    assert image["builder_gone_at"] is not None


def test_kill_9_leaves_builder_to_deadline_and_sweep(
    azure: Arm, config: Path, cli: Cli, packer: Packer
) -> None:
    """Nothing of Azure's ends it, and it holds what hangs on it."""
    packer.does("deaf")
    imageshell.killed(started(config, azure), packer)
    assert cli("reap", "-o", "json").items == []
    assert len(azure.cloud.alive) == 1
    azure.clock.advance(3700)
    for _ in range(4):  # the VM, its interface, its address
        cli("reap")
        azure.clock.advance(400)
    assert (azure.cloud.alive, azure.cloud.remaining) == ([], [])
    (image,) = cli.images()
    assert image["state"] == "failed"
    assert image["builder_gone_at"] is not None


def test_an_image_that_packer_was_broken_off_making_goes(
    azure: Arm, config: Path, cli: Cli, packer: Packer
) -> None:
    packer.does("leaves")
    before = set(images(azure))
    process = imageshell.started(config, BUILD, lambda: packer.waits)
    (name,) = set(images(azure)) - before
    assert images(azure)[name]["tags"]["vmrunner:image-of"] == INSTALLATION
    imageshell.interrupted(process)
    assert set(images(azure)) == before
    (image,) = cli.images()
    assert (image["state"], image["ref"]) == ("failed", None)


def left_alone(azure: Arm, config: Path, cli: Cli, packer: Packer) -> str:
    """The image of a build that was killed, and whose ledger is lost with it; its name."""
    packer.does("leaves")
    before = set(images(azure))
    process = imageshell.started(config, BUILD, lambda: packer.waits)
    (name,) = set(images(azure)) - before
    imageshell.killed(process, packer)
    imageshell.lose_ledger()
    return name


def test_an_image_without_a_row_ends_once_nobody_finished_it(
    azure: Arm, config: Path, cli: Cli, packer: Packer
) -> None:
    name = left_alone(azure, config, cli, packer)
    azure.clock.advance(3600 + 800)
    cli("reap")
    assert name in images(azure)
    azure.clock.advance(200)
    report = cli("audit", "-o", "json")
    ref = reference(azure, name)
    assert (report.code, ref in {line["ref"] for line in report.items}) == (7, True)
    done = cli("reap", "-o", "json")
    assert ref in {line["id"] for line in done.items}
    for _ in range(3):  # the VM, its interface, its address
        azure.clock.advance(400)
        cli("reap")
    assert name not in images(azure)
    assert cli("audit").code == 0


def test_an_image_without_a_row_that_was_promoted_stays(
    azure: Arm, config: Path, cli: Cli, packer: Packer
) -> None:
    name = left_alone(azure, config, cli, packer)
    assert cli("image", "promote", name, "--provider", "azure").code == 0
    azure.clock.advance(86_400)
    for _ in range(4):
        cli("reap")
        azure.clock.advance(400)
    cli("vm", "destroy", "--all-expired")
    assert name in images(azure)
    assert cli("audit").code == 0


def test_an_image_that_came_after_its_build_died_is_kept(
    azure: Arm, config: Path, cli: Cli, packer: Packer
) -> None:
    """Its row tells of it, however late somebody reaps."""
    packer.does("leaves")
    process = imageshell.started(config, BUILD, lambda: packer.waits)
    imageshell.killed(process, packer)
    azure.clock.advance(86_400)
    assert cli("audit").code == 7
    for _ in range(4):
        cli("reap")
        azure.clock.advance(400)
    cli("vm", "destroy", "--all-expired")
    (image,) = cli.images()
    assert (image["state"], image["title"] in images(azure)) == ("ready", True)
    assert "vmrunner:finish-by" not in images(azure)[image["title"]]["tags"]
    assert cli("audit").code == 0


def test_no_image_ends_before_its_row_could_be_asked_for(
    azure: Arm, config: Path, cli: Cli, packer: Packer
) -> None:
    """Neither by who ends all that is late, nor in a sweep in which the cloud did not tell."""
    packer.does("leaves")
    process = imageshell.started(config, BUILD, lambda: packer.waits)
    imageshell.killed(process, packer)
    azure.clock.advance(10_000)
    cli("vm", "destroy", "--all-expired")
    azure.cloud.faults.fail("versions.get", INTERNAL)
    cli("reap")
    assert [image["state"] for image in cli.images()] == ["building"]
    cli("reap")
    (image,) = cli.images()
    assert (image["state"], image["title"] in images(azure)) == ("ready", True)


def test_a_renamed_provider_closes_the_rows_of_its_images(
    azure: Arm, config: Path, cli: Cli, packer: Packer
) -> None:
    packer.does("leaves")
    process = imageshell.started(config, BUILD, lambda: packer.waits)
    imageshell.killed(process, packer)
    text = config.read_text()
    config.write_text(
        text.replace("[providers.azure]", "[providers.cloud]").replace(
            'default_provider = "azure"', 'default_provider = "cloud"'
        )
    )
    azure.clock.advance(5000)
    for _ in range(3):
        cli("reap")
        azure.clock.advance(400)
    (image,) = cli.images()
    assert (image["state"], image["title"] in images(azure)) == ("ready", True)
    assert image["builder_gone_at"] is not None


# --- promoting, retiring -------------------------------------------------------------------------


def test_what_was_promoted_last_is_what_builds_get(azure: Arm, cli: Cli) -> None:
    first, second, third = (made(azure, name) for name in "123")
    for ref in (first, third, second):  # the last is a rollback
        done = cli("image", "promote", ref, "--provider", "azure")
        assert done.code == 0, done.err
        assert chosen(azure) == ref
    tags = {name: image.get("tags", {}) for name, image in images(azure).items()}
    assert [name for name in tags if "vmrunner:promoted" in tags[name]] == ["vmrunner-default-2"]


def test_what_is_not_ours_is_left_alone_and_told(azure: Arm, cli: Cli) -> None:
    foreign = made(azure, "1", FOREIGN)
    done = cli("image", "promote", foreign, "--provider", "azure")
    assert (done.code, f"is made by installation {FOREIGN}" in done.err.decode()) == (5, True)
    assert azure.cloud.count("images.patch") == 0


def test_old_images_go_and_all_that_is_needed_stays(azure: Arm, cli: Cli) -> None:
    foreign = made(azure, "0", FOREIGN)
    used, promoted, waited, old, new = (made(azure, name) for name in "12345")
    assert cli("image", "promote", promoted, "--provider", "azure").code == 0
    maker = provider(azure, image=used)
    maker.create(order(maker, INSTALLATION))
    wait_for("vmrunner-default-3")
    argv = ("image", "gc", "--provider", "azure", "--keep", "1", "-o", "json")
    planned = cli(*argv, "--dry-run")
    assert {item["ref"]: item["why"] for item in planned.items} == {
        used: "in use",
        promoted: "promoted",
        waited: "in use",
        old: "old",
        new: "newest",
    }
    assert azure.cloud.count("images.delete") == 0
    done = cli(*argv)
    assert (done.code, [i["ref"] for i in done.items if i["removed"]]) == (0, [old])
    remaining = {image["id"].lower() for image in images(azure).values()}
    assert {foreign, used, promoted, waited, new} <= remaining
    assert old not in remaining
