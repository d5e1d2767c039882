"""The provisioning that Packer runs in a builder, run for real, twice, on what the bases of Debian
and Ubuntu are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.support.provisioning import HASH, Provisioned, provision, stage

UBUNTU: Final = Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")
DATASOURCES: Final = "etc/cloud/cloud.cfg.d/95-vmrunner-datasource.cfg"
NOBODYS: Final = (
    *("home/", "opt/", "root/.ssh/", "tmp/", "var/tmp/", "var/lib/cloud/", "var/lib/apt/lists/"),
    *("etc/ssh/ssh_host_", "etc/ssh/sshd_config.d/00-", "etc/netplan/", "etc/sudoers.d/90-"),
)
MANIFEST: Final = "etc/vmrunner/image.json"


def check(image: Provisioned, sources: str) -> None:
    assert "unchanged: all is as it was after the first time" in image.log

    # What an image is.
    assert {"cloud-init", "docker.io", "nftables", "cloud-guest-utils", "jq"} <= image.packages
    assert {"usr/bin/docker", "usr/bin/growpart", "usr/sbin/resize2fs"} <= set(image.files)
    assert f"datasource_list: [ {sources} ]" in image.text[DATASOURCES]
    assert HASH in image.text[MANIFEST]
    supervisor = {
        path.removeprefix("usr/lib/vmrunner/"): mode
        for path, mode in image.files.items()
        if path.startswith("usr/lib/vmrunner/") and mode.startswith("f")
    }
    wanted = {
        name.removeprefix("supervisor/"): "f 755" if text.startswith(b"#!") else "f 644"
        for name, text in stage().items()
        if name.startswith("supervisor/")
    }
    assert supervisor == wanted

    # And what it is not.
    logs = [path for path, mode in image.files.items() if mode.startswith("f")]
    assert [path for path in logs if path.startswith("var/log/")] == []
    remaining = [path for path in image.files if path.startswith(NOBODYS)]
    assert [path for path in remaining if not path.startswith("tmp/mmdebstrap.")] == []
    assert image.sizes["etc/machine-id"] == 0
    assert "admin" not in image.users
    away = {"unattended-upgrades", "rsyslog", "snapd", "ec2-instance-connect", "needrestart"}
    assert (
        image.packages & (away | {"multipath-tools", "modemmanager", "ubuntu-pro-client"}) == set()
    )
    assert [name for name in image.packages if name.startswith("linux-image")] == []


@pytest.mark.long  # the image that the tests boot is provisioned twice by the same scripts
def test_a_debian_base_provisioned_twice_becomes_the_same_image(tmp_path: Path) -> None:
    read = [DATASOURCES, MANIFEST]
    check(provision("trixie", tmp_path, platform="ec2", read=read), "Ec2, None")


CONTAINER: Final = {
    "name": "debian:trixie",
    "pull": None,
    "suite": "trixie",
    "packages": [],
    "command": ["bash"],
    "env": {},
}


@pytest.mark.long  # two to three minutes, from another mirror
def test_an_ubuntu_base_provisioned_twice_becomes_the_same_image(tmp_path: Path) -> None:
    if not UBUNTU.exists():
        pytest.fail("Ubuntu's keyring is missing: apt-get install ubuntu-keyring")
    options = [f"--keyring={UBUNTU}", "--components=main,universe"]
    noted = ["usr/share/vmrunner-seen-docker", "usr/share/vmrunner-seen-docker.tar"]
    settings = "usr/share/vmrunner-seen-docker.json"
    image = provision(
        "noble",
        tmp_path,
        platform="gce",
        read=[DATASOURCES, MANIFEST, *noted, settings, "etc/docker/daemon.json"],
        options=options,
        containers=[CONTAINER],
        mirror="https://mirror.example",
    )
    check(image, "GCE, None")

    # The container's root was made there, by what is there no more, and given to Docker.
    called, root = (image.text[name] for name in noted)
    assert called.splitlines()[0].startswith("import --change CMD")
    assert called.splitlines()[0].endswith(" - debian:trixie")
    assert "./usr/bin/bash" in root.splitlines()
    assert "./etc/resolv.conf" not in root.splitlines()
    assert "mmdebstrap" not in image.packages
    assert '"https://mirror.example"' in image.text[settings]
    assert '"https://mirror.example"' in image.text["etc/docker/daemon.json"]
