"""What an image is made of, and the hashes that say whether it is there already.

A recipe is TOML:

    name = "default"
    suite = "trixie"            # Debian's release inside the VM
    packages = ["runsc"]        # beside packer/packages.txt
    disk = "8GiB"               # of the image; it grows to the VM's disk at boot

    [docker]                    # its configuration; all of it may be left out
    registry_mirror = "https://mirror.example"  # asked before Docker Hub
    address_pool = "172.18.0.0/16"              # cut into networks of /24
    userns = true               # root in a container is nobody in the VM

    [[containers]]              # made from Debian packages: needs no registry
    name = "debian:trixie"
    suite = "trixie"
    packages = ["python3", "git"]
    command = ["bash"]
    env = {LANG = "C.UTF-8"}

    [[containers]]              # pulled
    pull = "docker.io/library/python:3.13-slim"
    name = "python:3.13-slim"   # default: as in `pull`
    insecure = false            # true: plain HTTP, or a certificate that nobody signed

Pure but for reading the files that it is given.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

from vmrunner.errors import ConfigError
from vmrunner.lib import resources

#: Raised when the builder itself makes something else from the same inputs.
VERSION: Final = 2
GIB: Final = 1 << 30
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_WORD: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PACKAGE: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_IMAGE: Final = re.compile(r"[a-z0-9][A-Za-z0-9._:/-]{0,254}")
_PULL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")
_ENV: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PRIVATE: Final = [
    IPv4Network(one) for one in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
]
_POOL: Final = re.compile(r"[0-9.]{7,15}/[0-9]{1,2}")
_URL: Final = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?")
_SIZE: Final = re.compile(r"([0-9]{1,4}) ?GiB")


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container image to pre-bake: pulled when `pull` is set, else made from packages."""

    name: str
    pull: str | None = None
    insecure: bool = False
    suite: str = "trixie"
    packages: tuple[str, ...] = ()
    command: tuple[str, ...] = ("bash",)
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """What it is made of, for a person: its name may be known from a registry."""
        if self.pull is not None:
            return f"pulled from {self.pull}"
        return f"Debian {self.suite} with {', '.join(self.packages) or 'nothing more'}"


@dataclass(frozen=True, kw_only=True)
class Docker:
    """How Docker is configured, beside what every image has."""

    registry_mirror: str | None = None
    address_pool: str = "172.18.0.0/16"
    userns: bool = False

    def environment(self) -> dict[str, str]:
        """As the provisioning scripts read it."""
        return {
            "VMRUNNER_REGISTRY_MIRROR": self.registry_mirror or "",
            "VMRUNNER_ADDRESS_POOL": self.address_pool,
            "VMRUNNER_USERNS": "yes" if self.userns else "no",
        }


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One image."""

    name: str
    containers: tuple[Container, ...]
    suite: str = "trixie"
    packages: tuple[str, ...] = ()  # beside the base packages
    disk: int = 8 * GIB  # bytes
    docker: Docker = Docker()


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """All bytes, beside the recipe, that end in an image."""

    base_packages: tuple[str, ...]
    scripts: Mapping[str, bytes]  # name -> text, run in the order of names
    unchanged: bytes  # the script that fails when they do something else the second time
    load: bytes  # the script that runs in the booted image
    supervisor: Mapping[str, bytes]  # path under /usr/lib/vmrunner -> content

    @classmethod
    def read(cls, guest: Path = resources.GUEST) -> Inputs:
        """Raises ConfigError when a part is missing in this installation."""
        packer = resources.path("packer")
        program = {f"guest/{p.name}": p.read_bytes() for p in sorted(guest.glob("[!.]*.*"))}
        launcher = program.pop("guest/launcher.py", None)
        if launcher is None or "guest/supervisor.py" not in program:
            raise ConfigError(
                f"supervisor: {guest} has no launcher.py and supervisor.py",
                hint="reinstall vmrunner: the program that runs builds in the VM is missing",
            )
        lines = (packer / "packages.txt").read_text().splitlines()
        return cls(
            base_packages=tuple(x for x in lines if x and not x.startswith("#")),
            scripts={p.name: p.read_bytes() for p in sorted((packer / "scripts").glob("*.sh"))},
            unchanged=(packer / "provision" / "40-unchanged.sh").read_bytes(),
            load=(packer / "boot" / "load.sh").read_bytes(),
            supervisor={**program, "supervisor": launcher},
        )


# --- hashes: one a stage, each covering all that the stage's result depends on ------------------


def root_hash(recipe: Recipe, inputs: Inputs) -> str:
    """The VM's root file system, as a tar."""
    scripts, told = _text(inputs.scripts), recipe.docker.environment()
    return _digest("root", recipe.suite, vm_packages(recipe, inputs), scripts, told)


def container_hash(container: Container) -> str:
    """A container image's tar; its command and environment are set when it is loaded."""
    if container.pull is not None:
        return _digest("pull", container.pull, container.name, container.insecure)
    return _digest("container", container.suite, sorted(container.packages))


def disk_hash(recipe: Recipe, inputs: Inputs) -> str:
    """The disk with everything in it but the supervisor and the manifest."""
    containers = [
        [container_hash(c), c.name, c.command, dict(c.env)] if c.pull is None else container_hash(c)
        for c in recipe.containers
    ]
    load = hashlib.sha256(inputs.load).hexdigest()
    return _digest("disk", root_hash(recipe, inputs), containers, load, recipe.disk)


def image_hash(recipe: Recipe, inputs: Inputs) -> str:
    """The whole image: this is the recipe hash by which it is found in the cache."""
    return _digest("image", recipe.name, disk_hash(recipe, inputs), _text(inputs.supervisor))


def supervisor_hash(inputs: Inputs) -> str:
    """The program that runs builds in the VM."""
    return _digest("supervisor", _text(inputs.supervisor))


def mode(content: bytes) -> int:
    """Of a file of the supervisor's in the image."""
    return 0o755 if content[:2] == b"#!" else 0o644


def vm_packages(recipe: Recipe, inputs: Inputs) -> list[str]:
    return sorted({*inputs.base_packages, *recipe.packages})


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps([VERSION, *parts], sort_keys=True).encode()).hexdigest()[:20]


def _text(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(text).hexdigest() for name, text in files.items()}


# --- parsing ------------------------------------------------------------------------------------


def find(name: str) -> Recipe:
    """A recipe that ships with vmrunner by name, or one of the user's by path (`…toml`)."""
    if name.endswith(".toml"):
        return load(Path(name))
    shipped = {p.stem: p for p in (resources.path("packer") / "recipes").glob("*.toml")}
    if name not in shipped:
        raise ConfigError(
            f"recipe: {name!r} is not known",
            hint=f"one of {', '.join(sorted(shipped))}, or the path of a .toml file",
        )
    return load(shipped[name])


def load(path: Path) -> Recipe:
    """Read a recipe; every mistake is a ConfigError that names the field, the value and the fix."""
    try:
        raw = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"recipe: {path} does not exist", hint="check the path") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"recipe: {path}: {error}", hint="correct the file") from None
    return parse(raw, where=str(path))


def parse(raw: Mapping[str, Any], *, where: str = "recipe") -> Recipe:
    table = _Table(where, raw)
    table.only("name", "suite", "packages", "disk", "docker", "containers")
    containers = raw.get("containers", [])
    if not isinstance(containers, list) or not all(isinstance(c, dict) for c in containers):
        raise table.wrong("containers", containers, "tables: [[containers]]")
    if not 1 <= len(containers) <= 16:
        raise table.wrong("containers", len(containers), "between 1 and 16 container images")
    parsed = tuple(_container(f"{where}: containers[{i}]", c) for i, c in enumerate(containers))
    names = [c.name for c in parsed]
    if len(set(names)) != len(names):
        raise table.wrong("containers", names, "a different `name` for each")
    packages, docker = (
        table.packages("packages"),
        _docker(f"{where}: docker", raw.get("docker", {})),
    )
    if docker.userns and "runsc" in packages:
        raise table.wrong("docker.userns", True, "one of the two: gVisor has users of its own")
    return Recipe(
        name=table.text("name", _WORD, "lower-case letters, digits, '.', '_' and '-'"),
        suite=table.text("suite", _WORD, "a Debian release such as 'trixie'", "trixie"),
        packages=packages,
        disk=table.size("disk", 8 * GIB),
        docker=docker,
        containers=parsed,
    )


def _docker(where: str, raw: Any) -> Docker:
    if not isinstance(raw, dict):
        raise _Table(where, {}).wrong("docker", raw, "a table: [docker]")
    table = _Table(where, raw)
    table.only("registry_mirror", "address_pool", "userns")
    pool = table.text("address_pool", _POOL, "a private range", Docker.address_pool)
    try:
        network = IPv4Network(pool)
    except ValueError as error:
        raise table.wrong("address_pool", pool, f"a range of addresses ({error})") from None
    inside = any(network.subnet_of(one) for one in _PRIVATE)
    if not inside or network.prefixlen > 24:
        raise table.wrong("address_pool", pool, "a private range of /24 or larger: 172.18.0.0/16")
    mirror = None
    if "registry_mirror" in raw:
        mirror = table.text("registry_mirror", _URL, "a URL such as 'https://mirror.example'")
    userns = raw.get("userns", False)
    if not isinstance(userns, bool):
        raise table.wrong("userns", userns, "true or false")
    return Docker(registry_mirror=mirror, address_pool=pool, userns=userns)


def _container(where: str, raw: Mapping[str, Any]) -> Container:
    table = _Table(where, raw)
    if "pull" in raw:
        table.only("pull", "name", "insecure")
        fix = "a reference such as 'docker.io/library/python:3.13-slim'"
        pull = table.text("pull", _PULL, fix)
        if "@" in pull and "name" not in raw:
            raise table.wrong("name", None, "a name and tag, since `pull` is by digest")
        insecure = raw.get("insecure", False)
        if not isinstance(insecure, bool):
            raise table.wrong("insecure", insecure, "true or false")
        name = _tagged(table.text("name", _IMAGE, "an image name such as 'python:3.13'", pull))
        return Container(name=name, pull=pull if "@" in pull else _tagged(pull), insecure=insecure)
    table.only("name", "suite", "packages", "command", "env")
    env = raw.get("env", {})
    if not isinstance(env, dict) or not all(
        _ENV.fullmatch(k) and isinstance(v, str) and "\n" not in v for k, v in env.items()
    ):
        raise table.wrong("env", env, 'names and strings: env = {LANG = "C.UTF-8"}')
    return Container(
        name=_tagged(table.text("name", _IMAGE, "an image name such as 'debian:trixie'")),
        suite=table.text("suite", _WORD, "a Debian release such as 'trixie'", "trixie"),
        packages=table.packages("packages"),
        command=table.strings("command", ("bash",)),
        env={"PATH": PATH, **env},
    )


def _tagged(name: str) -> str:
    """Docker's rule: no tag means `latest`."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


@dataclass(frozen=True)
class _Table:
    """One table of a recipe, with errors that say where they are."""

    where: str
    raw: Mapping[str, Any]

    def wrong(self, key: str, value: Any, fix: str) -> ConfigError:
        shown = "is missing" if value is None else f"{value!r} cannot be used"
        return ConfigError(f"{self.where}: {key}: {shown}", hint=f"give {fix}")

    def only(self, *known: str) -> None:
        for key in self.raw:
            if key not in known:
                near = get_close_matches(key, known, 1) or sorted(known)
                raise ConfigError(
                    f"{self.where}: {key}: not known", hint=f"did you mean {near[0]}?"
                )

    def text(self, key: str, pattern: re.Pattern[str], fix: str, default: str | None = None) -> str:
        value = self.raw.get(key, default)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.wrong(key, value, fix)
        return value

    def strings(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        value = self.raw.get(key, list(default))
        if not isinstance(value, list) or not all(isinstance(x, str) and x for x in value):
            raise self.wrong(key, value, "a list of strings")
        return tuple(value)

    def packages(self, key: str) -> tuple[str, ...]:
        for name in (names := self.strings(key)):
            if not _PACKAGE.fullmatch(name):
                raise self.wrong(key, name, "names of Debian packages")
        return names

    def size(self, key: str, default: int) -> int:
        value = self.raw.get(key)
        if value is None:
            return default
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if match is None or not 2 <= int(match[1]) <= 1024:
            raise self.wrong(key, value, "a size from '2GiB' to '1024GiB'")
        return int(match[1]) * GIB
