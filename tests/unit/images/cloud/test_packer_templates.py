"""Packer's templates parse, use options that their plugins have, and make a builder that ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.packer import PACKER, complaints, templates


def test_the_templates_are_right() -> None:
    assert complaints(templates()) == []


BROKEN = [
    ("aws.pkr.hcl", "shutdown_behavior =", "shutdown_behaviour =", "shutdown_behaviour: not an op"),
    ("aws.pkr.hcl", 'shutdown_behavior = "terminate"', "", "amazon-ebs.shutdown_behavior: None"),
    ("aws.pkr.hcl", "  skip_ami_run_tags = true\n", "", "amazon-ebs.skip_ami_run_tags: None"),
    ("aws.pkr.hcl", "snapshot_tags   = var.image_tags", "snapshot_tags = var.run_tags", "snapshot"),
    ("aws.pkr.hcl", "http_tokens  ", "http_token  ", "metadata_options.http_token: not an option"),
    ("aws.pkr.hcl", "true # never", "false # never", "source_public_ip: False instead of True"),
    (
        "aws.pkr.hcl",
        "  imds_support",
        '  iam_instance_profile = "x"\n  imds_support',
        "amazon-ebs.iam_instance_profile: must not be there",
    ),
    (
        "azure.pkr.hcl",
        "merge(var.run_tags, var.image_tags)",
        "var.image_tags",
        "azure-arm.azure_tags",
    ),
    (
        "azure.pkr.hcl",
        "build_resource_group_name",
        "resource_group_name",
        "build_resource_group_name",
    ),
    (
        "azure.pkr.hcl",
        "custom_data_file          = ",
        "user_data_file            = ",
        "azure-arm.user_data_file: must not be there",
    ),
    ("azure.pkr.hcl", "virtual_network_name      ", "virtual_networks_name     ", "not an option"),
    ("azure.pkr.hcl", "eviction_policy ", "evict ", "azure-arm.spot.evict: not an option"),
    ("gce.pkr.hcl", '= "DELETE"', '= "STOP"', "instance_termination_action: 'STOP'"),
    ("gce.pkr.hcl", "use_os_login ", "use_oslogin ", "googlecompute.use_oslogin: not an option"),
    ("gce.pkr.hcl", "= var.max_run_seconds", '= "3600"', "'3600' is not a number"),
    ("qemu.pkr.hcl", "hostfwd=tcp:127.0.0.1:", "hostfwd=tcp::", "forwarded from loopback alone"),
    ("qemu.pkr.hcl", 'http_bind_address = "127.0.0.1"', "", "qemu.http_bind_address: None"),
    ("qemu.pkr.hcl", '["-vnc", "none"],', "", "qemu.qemuargs: no VNC"),
    ("plugins.pkr.hcl", '"= 1.8.2"', '">= 1.8.2"', "hashicorp/amazon: >= 1.8.2 is not = 1.8.2"),
    (
        "variables.pkr.hcl",
        'variable "run_tags"',
        'variable "run_tag"',
        "run_tags: used, not declared",
    ),
    (
        "variables.pkr.hcl",
        'description = "The name of the finished image',
        'descriptions = "The name of the finished image',
        "variable image_name: no description",
    ),
    ("variables.pkr.hcl", '"The base must', '"the base must', "variable base: Packer takes whole"),
    ("build.pkr.hcl", '    "50-trim.sh",\n', "", "instead of the local builder's"),
    ("build.pkr.hcl", '      "${path.root}/scripts/08-network.sh",\n', "", "build: runs"),
    ("build.pkr.hcl", "provision/20-base.sh", "provision/20-bare.sh", "build: runs"),
    ("build.pkr.hcl", '"source.qemu.vmrunner",', "", "build: sources"),
    ("build.pkr.hcl", "cloud-init/deadline.sh", "cloud-init/dead-line.sh", "no such file"),
    ("build.pkr.hcl", "build {", 'build {\n  name = "x"', "build: a name"),
    ("build.pkr.hcl", "skip_clean ", "skip_cleaning ", "shell.skip_cleaning: not an option"),
]


@pytest.mark.parametrize(("file", "old", "new", "expected"), BROKEN, ids=lambda text: text[:40])
def test_what_is_broken_is_told(file: str, old: str, new: str, expected: str) -> None:
    texts = templates()
    assert old in texts[file]
    texts[file] = texts[file].replace(old, new, 1)
    assert [complaint for complaint in complaints(texts) if expected in complaint]


def test_packer_itself_takes_them(tmp_path: Path) -> None:
    """The one test that wants a real Packer with the templates' plugins; where there is none, the
    run's summary says so. It reaches nobody: plugins are fetched by hand, and the base of QEMU's
    source, whose checksums are looked up while it is validated, is a file here."""
    packer = shutil.which("packer")
    if packer is None:
        pytest.skip("no packer on PATH: the templates were parsed and checked, not validated by it")
    base = tmp_path / "base.qcow2"
    base.write_bytes(b"")
    stage = tmp_path / "stage"
    stage.mkdir()
    values = {
        "image_name": "vmrunner-test",
        "stage_dir": str(stage),
        "aws_region": "eu-west-1",
        "azure_subscription": "00000000-0000-4000-8000-000000000001",
        "azure_resource_group": "vmrunner",
        "azure_virtual_network": "vmrunner",
        "azure_subnet": "builds",
        "gce_project": "acme-ci",
        "gce_zone": "europe-west1-b",
        "qemu_base_url": str(base),
        "qemu_base_checksum": "none",
    }
    file = tmp_path / "values.pkrvars.json"
    file.write_text(json.dumps(values))
    # Names of nobody: to validate, the plugins want credentials and ask nobody for their worth.
    env = {**os.environ, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    done = subprocess.run(
        [packer, "validate", f"-var-file={file}", str(PACKER)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode and "packer init" in done.stdout + done.stderr:
        pytest.skip("this packer lacks the templates' plugins, which `packer init packer` fetches")
    assert done.returncode == 0, done.stdout + done.stderr
