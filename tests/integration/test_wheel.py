"""The wheel as a new user gets it: in an environment with what it declares, and no more.

It is built and installed without a network, and runs in an empty home, far from the checkout.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from vmrunner.images import recipe

ROOT = Path(__file__).parents[2]
SHIPPED = ("cloud-init", "deploy", "packer")
CLOUDS = """
[providers.local]
kind = "qemu"
[providers.aws]
kind = "ec2"
region = "eu-central-1"
[providers.google]
kind = "gce"
project = "some-project"
zones = ["europe-west3-a"]
[providers.microsoft]
kind = "azure"
subscription = "5f0c2a4e-0000-4000-8000-6ac1d5f6f2b7"
resource_group = "vmrunner"
"""
#: The clouds' drivers, PostgreSQL and the server need an extra. The launchers are programs in
#: VMs and units, the migrations are run by Alembic, in the first command that asks the ledger.
IMPORTS = """
import importlib, pkgutil, vmrunner
apart = (
    "vmrunner.guest.launcher", "vmrunner.guest.unit_launcher", "vmrunner.ledger.migrations.",
    "vmrunner.ledger.postgres_calls", "vmrunner.integrations.github.", "vmrunner.integrations.mcp.",
    "vmrunner.providers.azure.", "vmrunner.providers.ec2.", "vmrunner.providers.gce.",
    "vmrunner.server.", "vmrunner.services.telemetry.otlp",
)
for found in pkgutil.walk_packages(vmrunner.__path__, "vmrunner."):
    if not found.name.startswith(apart):
        importlib.import_module(found.name)
print(vmrunner.__file__)
"""
IMAGE = """
from vmrunner.images import recipe
inputs = recipe.Inputs.read()
print(*(recipe.image_hash(recipe.find(name), inputs) for name in ("default", "gvisor")))
"""


class Installed:
    """A wheel in an environment of its own."""

    def __init__(self, wheel: Path, at: Path) -> None:
        self.wheel, self.home, self._at = wheel, at / "home", at
        self.cwd = self.home / "work"
        self.cwd.mkdir(parents=True)
        environment = at / "venv"
        ran(sys.executable, "-m", "venv", "--without-pip", str(environment))
        self.python = environment / "bin/python"
        self.add(wheel)
        (self.site,) = environment.glob("lib/*/site-packages")
        (self.site / "needed.pth").write_text(f"{self._needed()}\n")

    def add(self, wheel: Path) -> None:
        """Install it, without what it requires."""
        installer = ("uv", "pip", "install", "-q", "--offline", "--no-index", "--no-deps")
        cache = ("--cache-dir", str(self._at / "cache"))
        ran(sys.executable, "-m", *installer, *cache, "--python", str(self.python), str(wheel))

    def run(
        self, *argv: str, program: str = "vmrunner", extras: Iterable[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """One of the environment's programs, with nothing of this process's own environment."""
        variables = {"HOME": str(self.home), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
        if extras:
            variables["PYTHONPATH"] = str(self._needed(*extras))
        return subprocess.run(
            [str(self.python.parent / program), *argv],
            cwd=self.cwd,
            env=variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def _needed(self, *extras: str) -> Path:
        """A directory with all that the wheels require, out of what the tests have installed."""
        place = self._at / "-".join(("needed", *extras))
        if place.exists():
            return place
        place.mkdir()
        for metadata in self.site.glob("vmrunner*.dist-info"):
            for found in required(PathDistribution(metadata), frozenset(extras), set()):
                for name in {Path(str(file)).parts[0] for file in found.files or ()}:
                    located = Path(str(found.locate_file(name)))
                    if name not in ("..", "__pycache__") and not (place / name).exists():
                        (place / name).symlink_to(located)
        return place


def required(
    of: Distribution, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]
) -> Iterator[Distribution]:
    """What it requires, and what that does."""
    for line in of.requires or ():
        want = Requirement(line)
        key = want.name, frozenset(want.extras)
        applies = want.marker is None or any(
            want.marker.evaluate({"extra": extra}) for extra in ("", *extras)
        )
        if applies and key not in seen:
            seen.add(key)
            found = distribution(want.name)
            yield found
            yield from required(found, key[1], seen)


def ran(*argv: str, cwd: Path = ROOT) -> None:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    at = tmp_path_factory.mktemp("wheel")
    return Installed(built(ROOT, at), at)


@pytest.fixture(scope="module")
def with_local_clouds(
    installed: Installed, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Installed, Path]:
    """vmrunner's wheel with that of the local clouds, and the latter."""
    at = tmp_path_factory.mktemp("with-local-clouds")
    both, clouds = Installed(installed.wheel, at), built(ROOT / "localclouds", at)
    both.add(clouds)
    return both, clouds


def built(project: Path, at: Path) -> Path:
    """Build the wheel of a project."""
    ran(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(at), cwd=project)
    (wheel,) = at.glob("*.whl")
    return wheel


def tree(top: Path) -> set[str]:
    """Return the files below a folder, each by its path from beside the folder."""
    return {
        str(path.relative_to(top.parent))
        for path in top.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def code(wheel: Path) -> set[str]:
    """Return the files of a wheel but for its metadata."""
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_what_the_tree_holds(installed: Installed) -> None:
    data = {f"vmrunner/_data/{name}" for part in SHIPPED for name in tree(ROOT / part)}
    data.add("vmrunner/_data/openapi.json")
    assert code(installed.wheel) == tree(ROOT / "vmrunner") | data


def test_the_wheel_has_no_local_cloud(installed: Installed) -> None:
    """Not even under the names of before, whose one module says what to install."""
    ours = {name for name in code(installed.wheel) if name.startswith("vmrunner/testing/")}
    assert ours == {"vmrunner/testing/__init__.py"}
    for name in ("localec2", "localgce.faults", "vms"):
        done = installed.run("-P", "-c", f"import vmrunner.testing.{name}", program="python")
        assert "pip install vmrunner-localclouds" in done.stderr


def test_the_local_clouds_wheel_holds_its_tree(with_local_clouds: tuple[Installed, Path]) -> None:
    _, wheel = with_local_clouds
    assert code(wheel) == tree(ROOT / "localclouds/vmrunner_localclouds")
    (licence,) = (x for x in zipfile.ZipFile(wheel).namelist() if x.endswith("/LICENSE"))
    assert zipfile.ZipFile(wheel).read(licence) == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("cloud", ["azure", "ec2", "gce"])
def test_a_local_cloud_starts_with_its_extra_alone(
    with_local_clouds: tuple[Installed, Path], cloud: str
) -> None:
    """By the name of before, too."""
    both, _ = with_local_clouds
    without = both.run("-P", "-m", f"vmrunner_localclouds.{cloud}", "--help", program="python")
    assert f"pip install 'vmrunner-localclouds[{cloud}]'" in without.stderr
    for name in (f"vmrunner_localclouds.{cloud}", f"vmrunner.testing.local{cloud}"):
        having = both.run("-P", "-m", name, "--help", program="python", extras=[cloud])
        assert f"usage: python -m vmrunner_localclouds.{cloud}" in having.stdout, having.stderr


def test_every_module_finds_what_it_imports(installed: Installed) -> None:
    done = installed.run("-P", "-W", "error", "-c", IMPORTS, program="python")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == installed.site / "vmrunner"


SERVER = """
import importlib, pkgutil, vmrunner.server
from vmrunner.server import html
for found in pkgutil.walk_packages(vmrunner.server.__path__, "vmrunner.server."):
    importlib.import_module(found.name)
html._templates().get_template("build.html")
print(sorted(path.name for path in html.STATIC.iterdir()))
"""


def test_the_server_brings_its_page(installed: Installed) -> None:
    done = installed.run("-P", "-c", SERVER, program="python", extras=["server"])
    assert done.returncode == 0, done.stderr
    assert "page.css" in done.stdout
    refused = installed.run("serve", "--listen", "127.0.0.1:0", "--until-idle")
    assert "pip install 'vmrunner[server]'" in refused.stderr


def test_an_image_is_the_one_that_a_checkout_makes(installed: Installed) -> None:
    """By its hash, which covers the recipes, the scripts and the program in the VM."""
    inputs = recipe.Inputs.read()
    here = [recipe.image_hash(recipe.find(name), inputs) for name in ("default", "gvisor")]
    done = installed.run("-P", "-c", IMAGE, program="python")
    assert done.stdout.split() == here, done.stderr


def test_a_first_day_in_an_empty_home(installed: Installed) -> None:
    assert "Usage: vmrunner" in installed.run("--help").stdout
    assert installed.run("version").stdout == f"vmrunner {distribution('vmrunner').version}\n"
    shown = installed.run("config", "show", "-o", "json")
    values = {item["key"]: item["value"] for item in json.loads(shown.stdout)["items"]}
    assert values["database.url"] == f"sqlite:///{installed.home}/.local/share/vmrunner/ledger.db"
    tried = installed.run("run", "--dry-run", "--network", "none", "--", "true")
    assert tried.returncode == 0, tried.stderr
    assert installed.run("ps").returncode == 0


def test_doctor_names_a_fix_for_each_finding(installed: Installed) -> None:
    done = installed.run("doctor", "-o", "json")
    findings = json.loads(done.stdout)["items"]
    bad = [found for found in findings if found["level"] != "ok"]
    assert done.returncode == 1  # no image yet, wherever this runs
    assert {"local: image"} <= {found["check"] for found in bad}
    assert [found for found in bad if not found["fix"]] == []
    assert next(x["fix"] for x in bad if x["check"] == "local: image").startswith("vmrunner image")


def test_what_is_for_packer_is_there(installed: Installed) -> None:
    done = installed.run("image", "stage", "staged")
    assert done.returncode == 0, done.stderr
    assert (installed.cwd / "staged/supervisor/supervisor").is_file()
    unknown = installed.run("image", "build", "nosuch")
    assert "one of default, gvisor" in unknown.stderr


@pytest.mark.parametrize(
    ("name", "extra"), [("aws", "aws"), ("google", "gcp"), ("microsoft", "azure")]
)
def test_a_cloud_needs_its_extra_and_no_more(installed: Installed, name: str, extra: str) -> None:
    settings = installed.home / ".config/vmrunner/config.toml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(CLOUDS)
    try:
        without = installed.run("guard", "policy", name)
        having = installed.run("guard", "policy", name, extras=[extra])
    finally:
        settings.unlink()
    assert without.returncode == 2
    assert f"pip install 'vmrunner[{extra}]'" in without.stderr
    if name == "aws":
        assert '"ec2:RunInstances"' in having.stdout, having.stderr
    else:  # its guard is Terraform's, whose module must be where the error says
        module = having.stderr.partition("the module ")[2].strip().rstrip(")")
        assert (Path(module) / "main.tf").is_file(), having.stderr
