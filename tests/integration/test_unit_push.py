"""A unit image, pushed to a registry by `vmrunner image build --unit --push`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.support.loopback_registry import LoopbackRegistry
from vmrunner.images import oci_layout
from vmrunner.lib import unit_recipe

VMRUNNER = Path(sys.executable).with_name("vmrunner")


def pushed(home: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Push the image that is in the cache there: one without a system in it."""
    units = home / "vmrunner/units"
    units.mkdir(parents=True, exist_ok=True)
    with tarfile.open(home / "root.tar", "w"):
        pass
    layout = units / unit_recipe.current()
    if not layout.exists():
        oci_layout.write(
            layout,
            home / "root.tar",
            unit_recipe.files(),
            directories={"work": 0o755},
            left_out=lambda _: False,
            labels={unit_recipe.LABEL: layout.name},
            architecture="amd64",
        )
    dirs = {f"XDG_{kind}_HOME": str(home) for kind in ("CACHE", "DATA", "STATE", "CONFIG")}
    return subprocess.run(
        [VMRUNNER, "image", "build", "--unit", "--push", name],
        env=os.environ | dirs,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_pushed_unit_image_is_named_by_its_digest(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    with LoopbackRegistry(tmp_path / "registry") as registry:
        done = pushed(tmp_path, f"{registry.address}/vmrunner-unit")
        assert done.returncode == 0, done.stderr
        name = done.stdout.strip()
        assert name.startswith(f"{registry.address}/vmrunner-unit@sha256:")
        words = ["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"]
        shown = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
        assert shown["Labels"][unit_recipe.LABEL] == unit_recipe.current()
        assert len(shown["Layers"]) == 1


def test_a_registry_that_refuses_a_push_is_told(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    with LoopbackRegistry(tmp_path / "registry", locked=True) as registry:
        done = pushed(tmp_path, f"{registry.address}/vmrunner-unit")
    assert done.returncode == 2, done.stderr
    assert f"--push: {registry.address}/vmrunner-unit: " in done.stderr
    assert "skopeo login" in done.stderr
    assert done.stdout == ""
