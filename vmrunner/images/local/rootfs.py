"""Root file systems: the VM's as a tar, and container images made or pulled. No root needed.

As an ordinary user mmdebstrap works in a user namespace, whose root can read neither our home nor
our cache: its temporary directory is under /var/tmp, and all that passes goes through pipes.
"""

from __future__ import annotations

import io
import os
import shlex
import stat
import tarfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import IO, Final

from vmrunner.errors import ConfigError, ImageError
from vmrunner.images.local import docker_store
from vmrunner.images.local.docker_store import Stored
from vmrunner.images.local.layers import StoreRoot
from vmrunner.images.local.programs import ChildPrograms, environment, joined
from vmrunner.images.recipe import Container, Inputs, Recipe, container_hash, vm_packages

Report = Callable[[float | None, str], None]  # fraction of the stage, what it does

_TIMEOUT: Final = 1800.0
_INSIDE: Final = "vmrunner-provision"
_UNCHANGED: Final = "unchanged.sh"
#: what mmdebstrap says -> how far it is by then, measured
_STEPS: Final = (
    ("running apt-get update", 0.03, "reading package lists"),
    ("downloading packages", 0.1, "downloading packages"),
    ("extracting archives", 0.2, "extracting"),
    ("installing essential", 0.25, "installing the base"),
    ("installing remaining", 0.35, "installing packages"),
    ("cleaning package lists", 0.85, "cleaning"),
    ("creating tarball", 0.88, "packing"),
)
#: what is not read in a VM that lives for one build
_EXCLUDED: Final = (
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
)
_KEPT: Final = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")


def scratch(cache: Path) -> Path:
    """The temporary directory of this user's builds for this cache: on disk, not in a tmpfs.

    World-writable with the sticky bit, as mmdebstrap demands of it; what it makes inside is not."""
    name = f"vmrunner-{os.geteuid()}-{sha256(bytes(cache.resolve())).hexdigest()[:12]}"
    place = Path("/var/tmp") / name  # noqa: S108 - checked below
    place.mkdir(mode=0o700, exist_ok=True)
    seen = place.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid():
        raise ConfigError(f"image build: {place} belongs to another user", hint="remove it")
    place.chmod(0o1777)
    return place


def sweep(place: Path, programs: ChildPrograms) -> None:
    """Remove what dead builds left in `place` (the caller holds the cache's lock)."""
    for path in sorted(place.iterdir()):
        argv = ["rm", "-rf", "--one-file-system", "--", str(path)]
        if path.lstat().st_uid != os.geteuid():  # made in a user namespace: undone in one
            argv = ["mmdebstrap", "--unshare-helper", *argv]
        for patience in (1.0, 2.0, 4.0, 0.0):
            try:
                programs.run(argv, what=f"removing {path}", timeout=300)
                break
            except ImageError:  # the dead build's programs are just ending
                if not patience:
                    raise
                time.sleep(patience)


def check_user() -> None:
    """Raises ConfigError when an ordinary user cannot make roots: no range of sub-ids."""
    if os.geteuid() == 0:
        return
    import pwd

    names = {str(os.geteuid()), pwd.getpwuid(os.geteuid()).pw_name}
    for file in (Path("/etc/subuid"), Path("/etc/subgid")):
        lines = file.read_text().splitlines() if file.exists() else []
        if not any(line.partition(":")[0] in names for line in lines):
            user = pwd.getpwuid(os.geteuid()).pw_name
            raise ConfigError(
                f"image build: {file}: no range for {user}",
                hint=f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
            )


def vm_root(
    recipe: Recipe, inputs: Inputs, *, to: Path, tmp: Path, programs: ChildPrograms, report: Report
) -> None:
    """The VM's root with every provisioning script run inside it, as a tar in `to`."""
    bundle = to.with_suffix(".scripts")
    _pack_scripts(recipe, inputs, bundle)
    put = f"tar-in {shlex.quote(str(bundle))} /"
    first = f'chroot "$1" sh /{_INSIDE}/05-initramfs.sh'
    every = f'chroot "$1" sh /{_INSIDE}/all'
    try:
        with to.open("wb") as tar:
            _mmdebstrap(
                recipe.suite,
                vm_packages(recipe, inputs),
                to=tar,
                tmp=tmp,
                what="making the VM's root",
                programs=programs,
                report=report,
                hooks=[
                    f"--essential-hook={put}",
                    f"--essential-hook={first}",
                    f"--customize-hook={every}",
                    f'--customize-hook=rm -rf "$1/{_INSIDE}"',
                ],
            )
    finally:
        bundle.unlink(missing_ok=True)


def package_root(
    container: Container, *, to: IO[bytes], tmp: Path, programs: ChildPrograms, report: Report
) -> None:
    """The root of a container image from Debian packages, as a tar."""
    _mmdebstrap(
        container.suite,
        list(container.packages),
        to=to,
        tmp=tmp,
        what=f"making {container.name}",
        programs=programs,
        report=report,
        hooks=['--customize-hook=rm -f "$1/etc/hostname" "$1/etc/resolv.conf"'],
    )


def container_root(
    container: Container,
    *,
    to: Path,
    at: StoreRoot,
    tmp: Path,
    programs: ChildPrograms,
    report: Report,
) -> Stored:
    """A container image from Debian packages, as it lies in Docker's store, in the directory
    `to`."""

    def make(tar: IO[bytes]) -> None:
        package_root(container, to=tar, tmp=tmp, programs=programs, report=report)

    name = container_hash(container)
    return joined(make, lambda tar: docker_store.from_root(tar, to, name, at))


def pull(
    container: Container, *, to: Path, at: StoreRoot, programs: ChildPrograms, report: Report
) -> Stored:
    """A container image from its registry, as it lies in Docker's store, in the directory `to`.

    Registry credentials are skopeo's own business (`skopeo login`)."""
    assert container.pull is not None
    report(None, f"pulling {container.pull}")
    options = ["--src-tls-verify=false"] if container.insecure else []
    argv = ["skopeo", "copy", "--override-os", "linux", *options, f"docker://{container.pull}"]
    archive = to / "archive.tar"
    try:
        programs.run(
            [*argv, f"docker-archive:{archive}:{container.name}"],
            what=f"pulling {container.pull}",
            timeout=_TIMEOUT,
        )
    except ImageError as error:
        archive.unlink(missing_ok=True)
        raise pull_error(container, str(error)) from None
    stored = docker_store.from_archive(archive, to, at)
    archive.unlink()
    return stored


def pull_error(container: Container, output: str) -> ConfigError | ImageError:
    """Translate the registry's answer for the author of the recipe."""
    low = output.lower()
    field = f"containers: pull: {container.pull!r}"
    if "manifest unknown" in low or "name unknown" in low or "not found" in low:
        return ConfigError(f"{field}: no such image", hint="correct the name or the tag")
    if "unauthorized" in low or "denied" in low:
        return ConfigError(
            f"{field}: the registry does not know it, or wants credentials",
            hint="correct the name, or log in: skopeo login REGISTRY",
        )
    if "server gave http response to https client" in low or "x509" in low:
        return ConfigError(
            f"{field}: the registry has no valid certificate",
            hint="for a registry that you trust: insecure = true",
        )
    if "no such host" in low or "connection refused" in low or "timeout" in low:
        return ConfigError(
            f"{field}: the registry cannot be reached",
            hint="check the registry's name and the network",
        )
    return ImageError(output)


def _mmdebstrap(
    suite: str,
    packages: list[str],
    *,
    to: IO[bytes],
    tmp: Path,
    what: str,
    programs: ChildPrograms,
    report: Report,
    hooks: list[str],
) -> None:
    """Debian's mirror is mmdebstrap's default; a mirror of the user's own comes with apt's
    configuration (a proxy), which mmdebstrap follows."""
    mode = "root" if os.geteuid() == 0 else "unshare"
    argv = ["mmdebstrap", "--variant=minbase", f"--mode={mode}"]
    argv += [f"--dpkgopt=path-exclude={p}" for p in _EXCLUDED]
    argv += [f"--dpkgopt=path-include={p}" for p in _KEPT]
    argv += ['--aptopt=Acquire::Languages "none"', '--aptopt=Acquire::Retries "3"']
    if packages:
        argv.append(f"--include={','.join(packages)}")
    argv += [*hooks, "--format=tar", suite, "-"]

    def line(text: str) -> None:
        for sign, fraction, words in _STEPS:
            if sign in text:
                report(fraction, words)

    programs.run(
        argv,
        what=what,
        timeout=_TIMEOUT,
        env=environment(
            TMPDIR=str(tmp),
            DEBIAN_FRONTEND="noninteractive",
            DPKG_FORCE="unsafe-io",  # nothing of it outlives a crash: it is packed at the end
            **programs.fetching,
        ),
        stdout=to,
        line=line,
    )


def _pack_scripts(recipe: Recipe, inputs: Inputs, to: Path) -> None:
    """The scripts, and one that runs all of them in order, twice, as a tar for mmdebstrap's
    `tar-in`."""
    variables = recipe.docker.environment() | {"VMRUNNER_WORK": f"/{_INSIDE}"}
    every = [*(f"sh /{_INSIDE}/{name}\n" for name in sorted(inputs.scripts))]
    unchanged = f"sh /{_INSIDE}/{_UNCHANGED}\n"
    lines = ["set -eu\n", *(f"export {k}={shlex.quote(v)}\n" for k, v in sorted(variables.items()))]
    runner = "".join([*lines, *every, unchanged, *every, unchanged])
    files = {**inputs.scripts, _UNCHANGED: inputs.unchanged, "all": runner.encode()}
    with tarfile.open(to, "w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{_INSIDE}/{name}")
            member.size, member.mode = len(text), 0o755
            tar.addfile(member, io.BytesIO(text))
