"""Distributions with drivers, installed in a directory as pip would: the package, and the metadata
that its pyproject.toml declares."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from vmrunner.providers import registry

SOURCE = Path(__file__).parents[1] / "thirdparty"
#: One that was written for a former port.
FORMER = Path(__file__).parents[1] / "data/former/driver"


def install(site: Path, source: Path = SOURCE) -> Path:
    """Install the distribution in `source` in `site`, which is returned."""
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    for package in source.glob("*/__init__.py"):
        name = package.parent.name
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package.parent, site / name, ignore=ignored)
    points = project["entry-points"]["vmrunner.providers"]
    metadata(site, project["name"], **points)
    return site


@contextlib.contextmanager
def importable(site: Path, source: Path = SOURCE) -> Iterator[None]:
    """Install it in `site`, where this process finds it until the context ends."""
    path = str(install(site, source))
    packages = {package.parent.name for package in source.glob("*/__init__.py")}
    sys.path.insert(0, path)
    registry.drivers.cache_clear()
    try:
        yield
    finally:
        sys.path.remove(path)
        registry.drivers.cache_clear()
        for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
            del sys.modules[name]


def metadata(site: Path, name: str, *, group: str = "vmrunner.providers", **points: str) -> None:
    """A distribution that declares these entry points: drivers, if no other `group` is said."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n")
    lines = [f"{kind} = {value}\n" for kind, value in points.items()]
    (info / "entry_points.txt").write_text(f"[{group}]\n" + "".join(lines))
