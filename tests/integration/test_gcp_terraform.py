"""The Terraform module for Google Cloud, read from its source: nothing is planned or applied."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import hcl2
import pytest

from tests.support.packer import plain

DEPLOY: Final = Path(__file__).parents[2] / "deploy/gcp"
PINNED: Final = re.compile(r"[a-z0-9-]+==[^\s;]+( \\\n    --hash=sha256:[0-9a-f]{64})+\n")


@pytest.fixture(scope="module")
def module() -> dict[str, Any]:
    found: dict[str, Any] = plain(hcl2.loads((DEPLOY / "terraform/main.tf").read_text()))
    return found


@pytest.fixture(scope="module")
def made(module: dict[str, Any]) -> dict[str, Any]:
    """Each resource by its address."""
    return {
        f"{kind}.{name}": body
        for block in module["resource"]
        for kind, named in block.items()
        for name, body in named.items()
    }


def test_the_function_waits_for_the_roles_of_its_build_account(
    made: dict[str, Any], module: dict[str, Any]
) -> None:
    """In a new organisation the default account of Compute Engine has none."""
    function = made["google_cloudfunctions2_function.guard"]
    assert function["build_config"][0]["service_account"] == "${google_service_account.build.id}"
    assert function["depends_on"] == ["${time_sleep.granted}"]
    assert made["time_sleep.granted"]["depends_on"] == ["${google_project_iam_member.build}"]
    member = made["google_project_iam_member.build"]
    assert member["member"] == "${google_service_account.build.member}"
    assert member["for_each"] == "${local.building}"
    (building,) = (block["building"] for block in module["locals"])
    for role in ("artifactregistry.writer", "logging.logWriter", "storage.objectViewer"):
        assert f"roles/{role}" in str(building)


def test_the_alert_waits_until_there_is_a_metric(made: dict[str, Any]) -> None:
    assert made["google_monitoring_alert_policy.guard"]["depends_on"] == ["${time_sleep.invoked}"]
    slept = made["time_sleep.invoked"]
    assert int(slept["create_duration"].removesuffix("s")) > 300  # it is invoked that often
    assert slept["triggers"] == {"job": "${google_cloud_scheduler_job.guard.id}"}


def test_each_provider_is_of_one_major_version(module: dict[str, Any]) -> None:
    (needed,) = (block["required_providers"][0] for block in module["terraform"])
    assert needed.keys() == {"archive", "google", "time"}
    assert all(re.fullmatch(r"~> \d+\.\d+", provider["version"]) for provider in needed.values())


def test_the_guard_gets_the_very_packages_that_were_looked_at() -> None:
    text = (DEPLOY / "guard/requirements.txt").read_text()
    assert PINNED.sub("", text) == ""
    pinned = set(re.findall(r"^[a-z0-9-]+(?===)", text, re.MULTILINE))
    wanted = re.findall(
        r"^[a-z0-9-]+", (DEPLOY / "guard/requirements.in").read_text(), re.MULTILINE
    )
    assert set(wanted) <= pinned
