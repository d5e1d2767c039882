"""Build a local image: stages whose results are kept by hash, so that a broken-off build goes on.

    root ─────────┐
    container(s) ─┴→ disk (with supervisor and manifest) → image (qcow2)

Nothing boots: a container image is brought into the form that Docker's store has while it is made.
Only roots are kept, so that a change of the supervisor costs seconds. One builder at a time in a
cache; what a dead builder left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import IO, Any, Final

from vmrunner.errors import BadOrder, ConfigError, ImageError
from vmrunner.images import recipe as recipes
from vmrunner.images.cloud import stage as staging
from vmrunner.images.local import disk, docker_store, layers, pax_names, rootfs, shared_downloads
from vmrunner.images.local.docker_store import Stored
from vmrunner.images.local.layers import Xattr
from vmrunner.images.local.programs import ChildPrograms, require
from vmrunner.images.recipe import GIB, Container, Inputs, Recipe
from vmrunner.lib import cache_dirs, local_images, private_dirs
from vmrunner.lib.file_bytes import digest_of
from vmrunner.lib.local_images import LocalImage

_FREE_CACHE: Final = 5 * GIB  # tars, the raw disk and the qcow2, for the default recipe
_FREE_TMP: Final = 3 * GIB  # unpacked roots
_KEEP: Final = 7 * 86400.0  # seconds that a stage which no build uses is kept
_KEPT: Final = 3  # roots, of half a GiB each
_PART: Final = ".part-"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One event of a build. `fraction` is of this stage, None when it cannot be told; the stage
    is over when it is 1.0. `seconds` since the stage began. `plan`: of the first event alone, the
    stages to come, of which those of a group run side by side."""

    stage: str
    fraction: float | None
    seconds: float
    message: str = ""
    plan: tuple[tuple[str, ...], ...] = ()


Callback = Callable[[Progress], None]


def build(
    recipe: Recipe,
    *,
    cache: Path,
    progress: Callback = lambda _: None,
    inputs: Inputs | None = None,
    fresh: bool = False,
) -> LocalImage:
    """Return the image of this recipe, building what of it is not in the cache yet.

    `fresh` makes every stage again (newer Debian packages, a moved registry tag). `inputs`: other
    scripts and programs than ours. Raises ConfigError for what the user can mend, ImageError
    otherwise.
    """
    inputs = inputs or Inputs.read()
    wanted = recipes.image_hash(recipe, inputs)
    if not fresh and (complete := _complete(cache, wanted)) is not None:
        return complete
    _require(recipe)
    cache_dirs.make(cache)
    with private_dirs.guarded(), _lock(cache, progress):
        if not fresh and (complete := _complete(cache, wanted)) is not None:
            return complete
        job = _Job(recipe, inputs, cache, progress, fresh)
        try:
            return job.run(wanted)
        finally:
            job.programs.stop()


@dataclass(eq=False)
class _Job:
    """One build, under the cache's lock."""

    recipe: Recipe
    inputs: Inputs
    cache: Path
    progress: Callback
    fresh: bool
    programs: ChildPrograms = field(default_factory=ChildPrograms)
    _telling: threading.Lock = field(default_factory=threading.Lock)

    @property
    def stages(self) -> Path:
        return self.cache / "stages"

    def run(self, wanted: str) -> LocalImage:
        started = time.time()
        cache_dirs.make(self.cache, "stages")
        cache_dirs.make(self.cache, "images")
        scratch = rootfs.scratch(self.cache)
        self._sweep(scratch)
        _check_space(self.cache, _FREE_CACHE)
        _check_space(scratch, _FREE_TMP)
        root, containers = self._roots(scratch)
        image = self._image(root, containers, wanted, started)
        self._prune()
        with contextlib.suppress(OSError):
            scratch.rmdir()
        return image

    # --- stages ---------------------------------------------------------------------------------

    def _roots(self, scratch: Path) -> tuple[Path, list[Path]]:
        """The tar of the VM's root and a directory for every container image, made side by side."""
        root = self.stages / f"root-{recipes.root_hash(self.recipe, self.inputs)}.tar"
        userns = self.recipe.docker.userns
        containers = [
            self.stages / f"container-{recipes.container_hash(c, userns=userns)}"
            for c in self.recipe.containers
        ]
        todo: dict[Path, tuple[str, Callable[[], None]]] = {
            root: ("root", lambda: self._vm_root(root, scratch))
        }
        for container, place in zip(self.recipe.containers, containers, strict=True):
            todo[place] = container.name, partial(self._container, container, place, scratch)
        for path in todo:
            if path.exists() and not self.fresh:
                os.utime(path)
        missing = [item for path, item in todo.items() if self.fresh or not path.exists()]
        plan = (tuple(name for name, _ in missing), ("disk",), ("image",))
        self.progress(Progress(stage="plan", fraction=0.0, seconds=0.0, plan=plan))
        workers = min(2, os.cpu_count() or 1)
        with self._downloads(many=len(missing) > 1), ThreadPoolExecutor(workers) as pool:
            try:
                for result in [pool.submit(make) for _, make in missing]:
                    result.result()
            except BaseException:
                self.programs.stop()  # the other roots are for nothing now
                raise
        return root, containers

    @contextlib.contextmanager
    def _downloads(self, *, many: bool) -> Iterator[None]:
        """Have the roots that are made inside fetch what they share once."""
        if not many:
            yield
            return
        with (
            TemporaryDirectory(prefix=_PART, dir=self.stages) as place,
            shared_downloads.shared(Path(place)) as variables,
        ):
            self.programs.fetching = variables
            yield

    def _vm_root(self, to: Path, scratch: Path) -> None:
        with self._stage("root") as report, self._part(to) as part:
            rootfs.vm_root(
                self.recipe,
                self.inputs,
                to=part,
                tmp=scratch,
                programs=self.programs,
                report=report,
            )

    def _container(self, container: Container, to: Path, scratch: Path) -> None:
        at, programs = docker_store.place(self.recipe.docker), self.programs
        with self._stage(container.name) as report, self._part(to) as part:
            if container.pull is not None:
                stored = rootfs.pull(container, to=part, at=at, programs=programs, report=report)
            else:
                stored = rootfs.container_root(
                    container, to=part, at=at, tmp=scratch, programs=programs, report=report
                )
            stored.note()

    def _image(self, root: Path, containers: list[Path], wanted: str, started: float) -> LocalImage:
        final = self.cache / "images" / wanted
        new = Path(mkdtemp(prefix=".new-", dir=final.parent))
        work = new / "work"
        work.mkdir()
        raw = work / "disk.raw"
        manifest = staging.manifest(self.recipe, wanted, time.time())
        with self._stage("disk") as report:
            self._disk(raw, work, root, containers, manifest)
            report(0.9, "the kernel")
            disk.extract_kernel(root, new)
        with self._stage("image") as report:
            sbom = disk.read(raw, disk.SBOM, work, self.programs)
            if sbom is not None:
                (new / local_images.SBOM).write_bytes(sbom)
            report(0.1, "compacting")
            disk.convert(raw, new / local_images.DISK, self.programs)
            shutil.rmtree(work)
            report(0.7, "checksums")
            digests = {
                name: hashlib.sha256(text).hexdigest()
                for name, text in self.inputs.supervisor.items()
            }
            outside = {
                **manifest,
                "supervisor": digests,
                "packages": recipes.vm_packages(self.recipe, self.inputs),
                "cmdline": disk.CMDLINE,
                "virtual_size": self.recipe.disk,
                "build_seconds": round(time.time() - started, 1),
                "files": {name: facts(new / name) for name in local_images.FILES},
            }
            (new / local_images.MANIFEST).write_text(json.dumps(outside, indent=1) + "\n")
            new.chmod(0o755)
            _replace(new, final)
        return local_images.read(final)

    def _disk(
        self,
        raw: Path,
        work: Path,
        root: Path,
        containers: list[Path],
        manifest: Mapping[str, Any],
    ) -> None:
        """The raw disk with everything in it. The manifest comes last: where it is, all is."""
        inside = (json.dumps(manifest, indent=1) + "\n").encode()
        stored = [
            (container, Stored.read(place))
            for container, place in zip(self.recipe.containers, containers, strict=True)
        ]
        xattrs: list[Xattr] = []

        def content(to: IO[bytes]) -> None:
            pax_names.copy(root, to)
            xattrs.extend(docker_store.write(stored, to, docker_store.place(self.recipe.docker)))
            for name, text in self.inputs.supervisor.items():
                path = f"{disk.LIBRARY}/{name}".lstrip("/")
                layers.put_file(to, path, text, recipes.mode(text))
            layers.put_file(to, disk.MANIFEST.lstrip("/"), inside, 0o644)

        disk.make(content, raw, self.recipe.disk, self.programs)
        disk.set_xattrs(raw, xattrs, work, self.programs)
        disk.check(raw, self.programs)
        disk.check_clean(raw, work, self.programs)
        if disk.read(raw, disk.MANIFEST, work, self.programs) != inside:
            raise ImageError("the disk was not written to its end")

    # --- housekeeping ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[rootfs.Report]:
        """Report a stage's beginning, steps and end."""
        began = time.monotonic()

        def report(fraction: float | None, message: str) -> None:
            event = Progress(
                stage=name, fraction=fraction, seconds=time.monotonic() - began, message=message
            )
            with self._telling:
                self.progress(event)

        report(0.0, "")
        yield report
        report(1.0, "")

    @contextlib.contextmanager
    def _part(self, done: Path) -> Iterator[Path]:
        """A place under a temporary name, renamed to `done` when the block is through. A tar is
        a file, everything else a directory."""
        part = done.with_name(_PART + done.name)
        if done.suffix != ".tar":
            part.mkdir()
        yield part
        _replace(part, done)

    def _sweep(self, scratch: Path) -> None:
        """Remove what dead builders left. We hold the lock: none of it is in use."""
        images = self.cache / "images"
        rubbish = [*images.glob(".new-*"), *images.glob(f"{local_images.GONE}*")]
        for rubbish_path in [*self.stages.glob(f"{_PART}*"), *rubbish]:
            _remove(rubbish_path)
        rootfs.sweep(scratch, self.programs)

    def _prune(self) -> None:
        """Remove stages that no build used for a while, and large ones that others superseded."""
        old = time.time() - _KEEP
        newest = sorted(self.stages.iterdir(), key=lambda p: p.stat().st_mtime, reverse=True)
        for kind in ("root", "disk", "container"):  # versions before this one kept disks too
            for number, stage in enumerate(p for p in newest if p.name.startswith(f"{kind}-")):
                many = kind != "container" and number >= _KEPT
                if kind == "disk" or many or stage.stat().st_mtime < old:
                    _remove(stage)


def _complete(cache: Path, wanted: str) -> LocalImage | None:
    """The image, when it is there and whole. A damaged one is built again."""
    try:
        return local_images.read(cache / "images" / wanted)
    except BadOrder:
        return None


def _require(recipe: Recipe) -> None:
    programs = ["mmdebstrap", "mke2fs", "e2fsck", "debugfs", "qemu-img"]
    if os.geteuid() != 0:
        programs.append("newuidmap")
    if any(c.pull is not None for c in recipe.containers):
        programs.append("skopeo")
    require(*programs, "setpriv")
    rootfs.check_user()


def _check_space(place: Path, needed: int) -> None:
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ConfigError(
            f"image build: {place}: {free / GIB:.1f} GiB free of the {needed // GIB} GiB needed",
            hint="free some space, or set XDG_CACHE_HOME to a larger disk",
        )


@contextlib.contextmanager
def _lock(cache: Path, progress: Callback) -> Iterator[None]:
    """Hold the cache for one builder at a time: the second one says so and waits."""
    with (cache / "build.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            message = f"another build is under way (pid {holder})"
            progress(Progress(stage="waiting", fraction=None, seconds=0.0, message=message))
            began = time.monotonic()
            fcntl.flock(file, fcntl.LOCK_EX)
            waited = time.monotonic() - began
            progress(Progress(stage="waiting", fraction=1.0, seconds=waited))
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def facts(path: Path) -> dict[str, str | int]:
    """Entry of a manifest for a file beside it."""
    return {"size": path.stat().st_size, "sha256": digest_of(path)}


def _replace(new: Path, done: Path) -> None:
    """Rename; what stands there already (damaged, or older) goes first."""
    if done.is_dir():
        shutil.rmtree(done)
    new.rename(done)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
