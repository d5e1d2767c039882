"""The unit image: what runs beside a build where a system starts the build's image itself.

Debian, python3, openssh-server, `guest/` and nothing else, in one layer. It is kept by its recipe's
hash as an OCI layout, pushed to a registry, and named by its digest there (`unit_image`).
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vmrunner.errors import ConfigError, ImageError
from vmrunner.images import oci_layout
from vmrunner.images.local import rootfs
from vmrunner.images.local.programs import ChildPrograms, require
from vmrunner.images.recipe import Container
from vmrunner.lib import cache_dirs, private_dirs, unit_recipe

_TIMEOUT: Final = 900.0  # seconds for a push
_NAME: Final = "unit"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
#: Made for one machine, or read by nobody.
_LEFT_OUT: Final = ("etc/ssh/ssh_host_", "var/cache/", "var/lib/apt/lists/", "var/log/", "dev/")
_DIRECTORIES: Final = {"vmrunner": 0o755, "work": 0o755, "run/sshd": 0o755, "run/identity": 0o700}


@dataclass(frozen=True)
class UnitImage:
    """One that is here."""

    hash: str
    digest: str
    directory: Path


def build(
    *, cache: Path, fresh: bool = False, report: Callable[[str], None] = lambda _: None
) -> UnitImage:
    """Return the unit image of this version, built unless it is there. `fresh`: with newer Debian
    packages. Raises ConfigError for what the user can mend, ImageError otherwise."""
    units = cache / "units"
    done = units / unit_recipe.current()
    if not fresh and (done / "index.json").exists():
        return _image(done)
    require("mmdebstrap", *([] if os.geteuid() == 0 else ["newuidmap"]))
    rootfs.check_user()
    cache_dirs.make(cache)
    cache_dirs.make(cache, "units")
    with private_dirs.guarded(), _lock(units):
        root = units / f"root-{unit_recipe.root()}.tar"
        if fresh or not root.exists():
            _make_root(root, cache, report)
        report("packing")
        part = units / f".part-{done.name}"
        shutil.rmtree(part, ignore_errors=True)
        oci_layout.write(
            part,
            root,
            {
                **unit_recipe.files(),
                **(unit_recipe.byte_code() if _has_our_python(root) else {}),
                unit_recipe.HASH: f"{done.name}\n".encode(),
            },
            directories=_DIRECTORIES,
            left_out=lambda name: name.startswith(_LEFT_OUT),
            labels={unit_recipe.LABEL: done.name},
            architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
        )
        shutil.rmtree(done, ignore_errors=True)
        part.rename(done)
        _forget_others(units, done)
    return _image(done)


def push(image: UnitImage, name: str, *, insecure: bool = False) -> str:
    """Push it to a registry. Returns its name there, by its digest: what `unit_image` is set to.
    Credentials are skopeo's own business (`skopeo login`). `insecure`: over plain HTTP, or with a
    certificate that is not checked; so is loopback."""
    require("skopeo")
    repository, slash, last = name.rpartition("/")
    base = f"{repository}{slash}{last.partition(':')[0].partition('@')[0]}"
    if not slash:
        raise ConfigError(f"--push: {name!r} names no registry", hint="give REGISTRY/NAME")
    plain = insecure or base.startswith(("127.", "localhost:", "[::1]:"))
    options = ["--preserve-digests", f"--dest-tls-verify={'false' if plain else 'true'}"]
    target = f"docker://{base}:{image.hash}"
    try:
        ChildPrograms().run(
            ["skopeo", "copy", *options, f"oci:{image.directory}", target],
            what=f"pushing {base}",
            timeout=_TIMEOUT,
        )
    except ImageError as error:
        raise ConfigError(
            f"--push: {base}: {str(error).splitlines()[-1][-300:]}",
            hint="log in (skopeo login REGISTRY), or correct the name",
        ) from None
    return f"{base}@{image.digest}"


def _image(directory: Path) -> UnitImage:
    return UnitImage(directory.name, oci_layout.digest(directory), directory)


def _make_root(root: Path, cache: Path, report: Callable[[str], None]) -> None:
    programs, scratch = ChildPrograms(), rootfs.scratch(cache)
    container = Container(name=_NAME, suite=unit_recipe.SUITE, packages=unit_recipe.PACKAGES)
    part = root.with_name(f".part-{root.name}")
    try:
        with part.open("wb") as tar:
            rootfs.package_root(
                container,
                to=tar,
                tmp=scratch,
                programs=programs,
                report=lambda _, text: report(text),
            )
        part.replace(root)
    finally:
        programs.stop()


def _has_our_python(root: Path) -> bool:
    """True if the Python in a root's tar takes byte code of the one that runs this."""
    suffix = f".{sys.implementation.cache_tag}.pyc"
    with tarfile.open(root) as tar:
        return any(member.name.endswith(suffix) for member in tar)


def _forget_others(units: Path, kept: Path) -> None:
    """Remove the images of other versions: none is used from here."""
    for path in units.iterdir():
        if path.is_dir() and path != kept:
            shutil.rmtree(path)


@contextmanager
def _lock(units: Path) -> Iterator[None]:
    """Hold the directory for one builder at a time."""
    with (units / "build.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
