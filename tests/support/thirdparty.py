"""The distribution in `tests/thirdparty`, installed in a directory as pip would: its package, and
the metadata that its pyproject.toml declares."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "thirdparty"


def install(site: Path) -> Path:
    """Install it in `site`, which is returned."""
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    shutil.copytree(
        SOURCE / "elsewhere", site / "elsewhere", ignore=shutil.ignore_patterns("__pycache__")
    )
    points = project["entry-points"]["vmrunner.providers"]
    metadata(site, project["name"], **points)
    return site


def metadata(site: Path, name: str, *, group: str = "vmrunner.providers", **points: str) -> None:
    """A distribution that declares these entry points: drivers, if no other `group` is said."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n")
    lines = [f"{kind} = {value}\n" for kind, value in points.items()]
    (info / "entry_points.txt").write_text(f"[{group}]\n" + "".join(lines))
