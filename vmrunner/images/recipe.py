"""Recipes: the contents of an image, and the hashes that say whether it is there already.

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
    insecure = false            # true: plain HTTP, or an unsigned certificate

Pure but for reading the files that it is given.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from vmrunner.config.validation_errors import FieldError, explained
from vmrunner.errors import ConfigError
from vmrunner.lib import resources
from vmrunner.lib.config_section import Section

#: Raised when the builder itself makes something else from the same inputs.
VERSION: Final = 3
GIB: Final = 1 << 30
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_WORD: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PACKAGE: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_IMAGE: Final = re.compile(r"[a-z0-9][A-Za-z0-9._:/-]{0,254}")
_PULL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")
_ENV: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PRIVATE: Final = [
    IPv4Network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
]
_POOL: Final = re.compile(r"[0-9.]{7,15}/[0-9]{1,2}")
_URL: Final = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?")
_SIZE: Final = re.compile(r"([0-9]{1,4}) ?GiB")


# --- the tables of a recipe ---------------------------------------------------------------------


def _field_error(text: str, fix: str) -> FieldError:
    return FieldError(ConfigError(f"recipe: {text}", hint=fix))


def _wrong(value: Any, fix: str) -> FieldError:
    return _field_error(f"{value!r} cannot be used", f"give {fix}")


def _like(pattern: re.Pattern[str], fix: str) -> BeforeValidator:
    """Text of which all matches."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _wrong(value, fix)
        return value

    return BeforeValidator(check)


def _strings(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(x, str) and x for x in value):
        raise _wrong(value, "a list of strings")
    return tuple(value)


def _packages(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if not _PACKAGE.fullmatch(name):
            raise _wrong(name, "names of Debian packages")
    return value


def _size(value: Any) -> int:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or not 2 <= int(match[1]) <= 1024:
        raise _wrong(value, "a size from '2GiB' to '1024GiB'")
    return int(match[1]) * GIB


def _pool(value: str) -> str:
    try:
        network = IPv4Network(value)
    except ValueError as error:
        raise _wrong(value, f"a range of addresses ({error})") from None
    if not any(network.subnet_of(private) for private in _PRIVATE) or network.prefixlen > 24:
        raise _wrong(value, "a private range of /24 or larger: 172.18.0.0/16")
    return value


def _tagged(name: str) -> str:
    """Docker's rule: no tag means `latest`; a digest needs none."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _environment(env: Any) -> dict[str, str]:
    if not isinstance(env, dict) or not all(
        _ENV.fullmatch(k) and isinstance(v, str) and "\n" not in v for k, v in env.items()
    ):
        raise _wrong(env, 'names and strings: env = {LANG = "C.UTF-8"}')
    return {"PATH": PATH, **env}


Strings = Annotated[tuple[str, ...], BeforeValidator(_strings)]
Packages = Annotated[Strings, AfterValidator(_packages)]
Suite = Annotated[str, _like(_WORD, "a Debian release such as 'trixie'")]
Url = Annotated[str, _like(_URL, "a URL such as 'https://mirror.example'")]
_BUILT: Final = frozenset({"suite", "packages", "command", "env"})
_PULLED: Final = frozenset({"pull", "insecure"})


class RecipeTable(Section):
    """A table of a recipe. Its defaults need no check."""

    model_config = ConfigDict(validate_default=False)


class Container(RecipeTable):
    """A container image to pre-bake: pulled when `pull` is set, else made from packages."""

    pull: Annotated[str, AfterValidator(_tagged)] | None = None
    name: Annotated[
        str, _like(_IMAGE, "an image name such as 'debian:trixie'"), AfterValidator(_tagged)
    ]
    insecure: StrictBool = False
    suite: Suite = "trixie"
    packages: Packages = ()
    command: Strings = ("bash",)
    env: Annotated[Mapping[str, str], BeforeValidator(_environment)] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _of_one_origin(cls, raw: Any) -> Any:
        """Keys of the other origin are refused; what is pulled has its name from there."""
        if isinstance(raw, cls):
            return raw
        if not isinstance(raw, dict):
            raise _wrong(raw, "tables: [[containers]]")
        pull = raw.get("pull")
        for key in raw:
            if key in (_PULLED if pull is None else _BUILT):
                origin = "made from packages" if pull is None else "pulled"
                raise _field_error(f"{key}: not known of an image that is {origin}", "leave it out")
        if pull is None:
            return {"env": {}, **raw}
        if not isinstance(pull, str) or not _PULL.fullmatch(pull):
            fix = "give a reference such as 'docker.io/library/python:3.13-slim'"
            raise _field_error(f"pull: {pull!r} cannot be used", fix)
        if "name" not in raw and "@" in pull:
            raise _field_error("name: is missing", "give a name and tag, since `pull` is by digest")
        return {"name": pull, **raw}

    @property
    def origin(self) -> str:
        """Source of the container, as text: its name may be known from a registry."""
        if self.pull is not None:
            return f"pulled from {self.pull}"
        return f"Debian {self.suite} with {', '.join(self.packages) or 'nothing more'}"


class Docker(RecipeTable):
    """Docker's configuration, beside what every image has."""

    registry_mirror: Url | None = None
    address_pool: Annotated[str, _like(_POOL, "a private range"), AfterValidator(_pool)] = (
        "172.18.0.0/16"
    )
    userns: StrictBool = False

    @model_validator(mode="before")
    @classmethod
    def _is_table(cls, raw: Any) -> Any:
        if not isinstance(raw, dict | cls):
            raise _wrong(raw, "a table: [docker]")
        return raw

    def environment(self) -> dict[str, str]:
        """Return the settings as the provisioning scripts read them."""
        return {
            "VMRUNNER_REGISTRY_MIRROR": self.registry_mirror or "",
            "VMRUNNER_ADDRESS_POOL": self.address_pool,
            "VMRUNNER_USERNS": "yes" if self.userns else "no",
        }


class Recipe(RecipeTable):
    """One image."""

    name: Annotated[str, _like(_WORD, "lower-case letters, digits, '.', '_' and '-'")]
    suite: Suite = "trixie"
    packages: Packages = ()  # beside the base packages
    disk: Annotated[int, BeforeValidator(_size)] = 8 * GIB  # bytes
    docker: Docker = Docker()
    containers: tuple[Container, ...]

    @field_validator("docker")
    @classmethod
    def _one_of_two(cls, docker: Docker, info: ValidationInfo) -> Docker:
        if docker.userns and "runsc" in info.data.get("packages", ()):
            fix = "give one of the two: gVisor has users of its own"
            raise _field_error("userns: True cannot be used", fix)
        return docker

    @field_validator("containers", mode="before")
    @classmethod
    def _are_few(cls, containers: Any) -> Any:
        if not isinstance(containers, list | tuple):
            raise _wrong(containers, "tables: [[containers]]")
        if not 1 <= len(containers) <= 16:
            raise _wrong(len(containers), "between 1 and 16 container images")
        return containers

    @field_validator("containers")
    @classmethod
    def _are_told_apart(cls, containers: tuple[Container, ...]) -> tuple[Container, ...]:
        names = [c.name for c in containers]
        if len(set(names)) != len(names):
            raise _wrong(names, "a different `name` for each")
        return containers


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """All bytes, beside the recipe, that end in an image."""

    base_packages: tuple[str, ...]
    scripts: Mapping[str, bytes]  # name -> text, run in the order of names
    unchanged: bytes  # the script that fails when they do something else the second time
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
            supervisor={**program, "supervisor": launcher},
        )


# --- hashes: one a stage, each covering all that the stage's result depends on ------------------


def root_hash(recipe: Recipe, inputs: Inputs) -> str:
    """The VM's root file system, as a tar."""
    scripts, environment = _text(inputs.scripts), recipe.docker.environment()
    return _digest("root", recipe.suite, vm_packages(recipe, inputs), scripts, environment)


def container_hash(container: Container, *, userns: bool = False) -> str:
    """A container image as it lies in Docker's store; its command and environment come later."""
    if container.pull is not None:
        return _digest("pull", container.pull, container.name, container.insecure, userns)
    return _digest("container", container.suite, sorted(container.packages), userns)


def disk_hash(recipe: Recipe, inputs: Inputs) -> str:
    """The disk with everything in it but the supervisor and the manifest."""
    containers = [
        [container_hash(c, userns=recipe.docker.userns), c.name, c.command, dict(c.env)]
        for c in recipe.containers
    ]
    return _digest("disk", root_hash(recipe, inputs), containers, recipe.disk)


def image_hash(recipe: Recipe, inputs: Inputs) -> str:
    """The whole image: this is the recipe hash by which it is found in the cache."""
    return _digest("image", recipe.name, disk_hash(recipe, inputs), _text(inputs.supervisor))


def supervisor_hash(inputs: Inputs) -> str:
    """The program that runs builds in the VM."""
    return _digest("supervisor", _text(inputs.supervisor))


def mode(content: bytes) -> int:
    """Return the mode that a file of the supervisor's has in the image."""
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
    """Check a recipe that was read from `where`. Raises `ConfigError`."""
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise explained(error, Recipe, lambda _: f"{where}: ") from None
