"""The network that an image is given, and what its Docker knows of it."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from vmrunner.lib import resources

PACKER = resources.path("packer")


def run(script: str, root: Path, **environment: str) -> None:
    """With this root's /etc, where no systemd runs."""
    tools = root / "bin"
    tools.mkdir(parents=True)
    (tools / "systemctl").symlink_to("/bin/true")
    text = (PACKER / "scripts" / script).read_text().replace("/etc/", f"{root}/etc/")
    env = {"PATH": f"{tools}:{os.environ['PATH']}", **environment}
    subprocess.run(["sh", "-c", text], env=env, check=True, timeout=60)


def test_an_image_takes_the_mtu_of_its_network(tmp_path: Path) -> None:
    run("08-network.sh", tmp_path)
    parser = configparser.ConfigParser()
    parser.read(tmp_path / "etc/systemd/network/80-vmrunner.network")
    assert parser.getboolean("DHCPv4", "UseMTU")
    assert parser["Network"]["DHCP"] == "ipv4"


@pytest.mark.parametrize(("platform", "mtu"), [("gce", 1460), ("ec2", 1500), ("local", 1500)])
def test_containers_send_nothing_larger(tmp_path: Path, platform: str, mtu: int) -> None:
    run("40-docker.sh", tmp_path, VMRUNNER_PLATFORM=platform)
    config: dict[str, Any] = json.loads((tmp_path / "etc/docker/daemon.json").read_text())
    assert config["mtu"] == mtu


@pytest.mark.parametrize(
    ("platform", "sources"), [("ec2", "Ec2, None"), ("gce", "GCE, None"), ("azure", "Azure, None")]
)
def test_an_image_asks_its_own_clouds_metadata_alone(
    tmp_path: Path, platform: str, sources: str
) -> None:
    run("30-cloud-init.sh", tmp_path, VMRUNNER_PLATFORM=platform)
    text = (tmp_path / "etc/cloud/cloud.cfg.d/95-vmrunner-datasource.cfg").read_text()
    assert f"datasource_list: [ {sources} ]\n" in text


def test_a_builder_keeps_its_network_while_packages_are_installed() -> None:
    """An upgrade of systemd starts networkd anew: what it is configured by must be there still."""
    before = (PACKER / "provision/20-base.sh").read_text()
    after = (PACKER / "provision/80-finish.sh").read_text()
    for place in ("/etc/netplan", "/etc/network/interfaces.d", "/etc/systemd/network"):
        assert place not in before
        assert place in after
