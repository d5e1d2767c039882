"""A provider of kind `gce` at a local endpoint, for tests of images that Packer makes there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.google import INSTALLATION, Google, google
from tests.imageshell import Cli

BUILD = ("image", "build", "--provider", "google")


@pytest.fixture
def gce(monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    """One that tells the time of this host, for programs that have no other clock."""
    with google() as made:
        made.cloud.skew = time.time() - made.clock()
        yield made


@pytest.fixture
def config(home: Path, gce: Google, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = configure(home, gce)
    monkeypatch.setenv("VMRUNNER_CONFIG", str(file))
    return file


def configure(home: Path, gce: Google, *, bare: bool = False, **more: str) -> Path:
    said = {"network": f'"{gce.site.network}"', "subnetwork": f'"{gce.site.subnetwork}"'} | more
    said = more if bare else said
    file = home / "vmrunner.toml"
    file.write_text(
        f'installation = "{INSTALLATION}"\ndefault_provider = "google"\n'
        f'[providers.google]\nkind = "gce"\nproject = "{gce.project}"\n'
        f'zones = ["{gce.zone}"]\napi_endpoint = "{gce.cloud.url}"\n'
        + "".join(f"{key} = {value}\n" for key, value in said.items())
    )
    return file


@pytest.fixture
def cli(config: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(capfdbinary)
