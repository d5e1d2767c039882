"""How Packer is asked for an image of Compute Engine, and what its plugin needs there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_cloud_images_gce import BUILD
from tests.integration.test_cloud_images_gce import cli as cli  # the fixture
from tests.integration.test_cloud_images_gce import config as config  # the fixture
from tests.integration.test_cloud_images_gce import gce as gce  # the fixture
from tests.support.fake_packer import Packer
from tests.support.fake_packer import packer as packer  # the fixture
from tests.support.gce import INSTALLATION, Google
from tests.support.image_cli import Cli


def configure(config: Path, gce: Google, **values: str) -> None:
    """Nothing but this."""
    config.write_text(
        f'installation = "{INSTALLATION}"\ndefault_provider = "google"\n'
        f'[providers.google]\nkind = "gce"\nproject = "{gce.project}"\n'
        f'zones = ["{gce.zone}"]\napi_endpoint = "{gce.cloud.url}"\n'
        + "".join(f"{key} = {value}\n" for key, value in values.items())
    )


def test_a_right_that_packers_plugin_dies_without_is_named(
    gce: Google, cli: Cli, packer: Packer
) -> None:
    gce.cloud.faults.deny("images.deprecate")
    done = cli(*BUILD)
    assert done.code == 1
    assert b"unexpected EOF" in done.err
    assert b"compute.images.deprecate" in done.err
    assert gce.cloud.alive == gce.cloud.disks == []


@pytest.mark.parametrize(
    ("network", "subnetwork"), [(None, "vmrunner"), ("vmrunner", "vmrunner"), ("default", None)]
)
def test_a_subnetwork_belongs_to_its_own_network_always(
    gce: Google, config: Path, cli: Cli, packer: Packer, network: str | None, subnetwork: str | None
) -> None:
    values = {"image": f'"{gce.site.family}"'}
    if network:
        values["network"] = f'"global/networks/{network}"'
    if subnetwork:
        values["subnetwork"] = f'"regions/{gce.site.region}/subnetworks/{subnetwork}"'
    configure(config, gce, **values)
    assert cli(*BUILD).code == 0
    assert ("gce_network" in packer.variables) is (subnetwork is None)
    (nic,) = gce.machine.shown["networkInterfaces"]
    assert nic["network"].endswith(f"/{subnetwork or network}")


@pytest.mark.parametrize(
    ("machine_type", "disk_type"),
    [("e2-standard-2", "pd-balanced"), ("n4-standard-2", "hyperdisk-balanced")],
)
def test_a_builder_boots_from_a_disk_that_its_type_takes(
    gce: Google, config: Path, cli: Cli, packer: Packer, machine_type: str, disk_type: str
) -> None:
    configure(
        config, gce, subnetwork=f'"{gce.site.subnetwork}"', machine_types=f'["{machine_type}"]'
    )
    assert cli(*BUILD).code == 0
    assert packer.variables["gce_disk_type"] == disk_type
