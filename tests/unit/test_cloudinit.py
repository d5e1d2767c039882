"""User-data: a dict, dumped; nothing that a value holds can leave its place."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import yaml

from vmrunner import cloudinit, data, keys
from vmrunner.errors import BadOrder


def made(**other: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "instance": "vm-01",
        "deadline": 1_800_000_000.9,
        "boot_ttl": 2700.2,
        "authorized_key": "ssh-ed25519 AAAA user\n",
        "host_private": "-----BEGIN\nsecret: [x]\n-----END\n",
        "host_public": "ssh-ed25519 BBBB",
        "datasource": "NoCloud",
        **other,
    }
    text = cloudinit.user_data(**values)
    assert text.startswith(b"#cloud-config\n")
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def test_the_timer_is_armed_before_anything_else() -> None:
    document = made()
    assert next(iter(document)) == "bootcmd"
    program, flag, script, _, deadline, ttl = document["bootcmd"][0]
    assert (program, flag, deadline, ttl) == ("sh", "-c", "1800000000", "2701")
    assert script.count("DefaultDependencies=no") >= 2


def test_keys_come_through_as_they_are() -> None:
    document = made()
    assert document["ssh_keys"] == {
        "ed25519_private": "-----BEGIN\nsecret: [x]\n-----END\n",
        "ed25519_public": "ssh-ed25519 BBBB",
    }
    (root,) = document["users"]
    assert root["ssh_authorized_keys"] == ["ssh-ed25519 AAAA user"]
    assert root["lock_passwd"] is False


def test_no_value_can_add_a_command() -> None:
    evil = 'vm"\nruncmd:\n  - reboot\n'
    document = made(instance=evil, authorized_key=evil)
    assert "runcmd" not in document
    assert document["hostname"] == evil


def test_only_a_local_disk_has_no_partition_to_grow() -> None:
    assert made()["growpart"] == {"mode": "off"}
    assert "growpart" not in made(datasource="Ec2")


def test_real_keys_fit_well_below_the_limit() -> None:
    user, host = keys.generate(), keys.generate()
    text = cloudinit.user_data(
        instance="vm-01",
        deadline=1.8e9,
        boot_ttl=60,
        authorized_key=user.public,
        host_private=host.private,
        host_public=host.public,
        datasource="NoCloud",
    )
    assert len(text) < 4096
    with pytest.raises(BadOrder, match="16384"):
        made(authorized_key="x" * 20_000)


def test_the_timer_script_is_a_shell_script() -> None:
    script = data.path("cloud-init") / "deadline.sh"
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
