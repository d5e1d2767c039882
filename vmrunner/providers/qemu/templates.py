"""Templates: frozen VMs that clones start from, in the user's cache.

    <cache>/templates/<key>/{ram, state, disk.qcow2, template.json}

A directory appears there by one rename when it is complete, and its files never change: clones map
them. The key covers all that a clone must share with its template, since QEMU itself notices no
difference. A template holds no key, id or secret, and had no network when it was made.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from vmrunner.lib import cache_dirs
from vmrunner.lib.file_bytes import digest_of
from vmrunner.lib.local_images import LocalImage
from vmrunner.model import Network, Order, Shape, Spec
from vmrunner.providers.qemu import image_integrity, state_dir

#: Raised when templates of before cannot be used any more.
VERSION: Final = 1
RAM: Final = "ram"
STATE: Final = "state"
DISK: Final = "disk.qcow2"
MANIFEST: Final = "template.json"
FILES: Final = (RAM, STATE, DISK)
NEW: Final = ".new-"
GONE: Final = ".gone-"
LOCK: Final = ".lock"  # of a key's maker

_WANTED: Final = ".wanted"
_REMEMBERED: Final = 6 * 3600.0  # seconds

CPUINFO: Final = "/proc/cpuinfo"

_SLIRP: Final = ("/usr/lib/*/libslirp.so.*", "/usr/lib/libslirp.so.*", "/usr/lib64/libslirp.so.*")


@dataclass(frozen=True)
class Template:
    """A complete template."""

    directory: Path

    @property
    def key(self) -> str:
        return self.directory.name

    @property
    def ram(self) -> Path:
        return self.directory / RAM

    @property
    def state(self) -> Path:
        return self.directory / STATE

    @property
    def disk(self) -> Path:
        return self.directory / DISK

    @property
    def size(self) -> int:
        """Bytes on disk: its memory has holes."""
        total = 0
        for name in FILES:
            with contextlib.suppress(FileNotFoundError):
                total += 512 * (self.directory / name).stat().st_blocks
        return total

    def use(self) -> None:
        """Note that a clone is made of it: what is used stays."""
        with contextlib.suppress(OSError):
            os.utime(self.directory)


def key(words: Sequence[str], order: Order, image: LocalImage, accel: str) -> str:
    """Return the name of the template for such a VM. `words`: QEMU's command line, without names
    of the VM."""
    assert order.shape is not None
    facts = {
        "version": VERSION,
        "words": list(words),
        "image": [image.hash, dict(image.sha256)],  # built again it has the same hash
        "disk": order.offer.disk,
        "network": order.network.inside.value,
        "shape": asdict(order.shape),
        "programs": _builds(Path(words[0])),
        "host": _host() if accel == "kvm" else _clock(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


def find(cache: Path, wanted: str, notes: Path) -> Template | None:
    """Return the template of this key, whole as it was made; None where there is none. Raises
    BadOrder when others may write where it lies. `notes`: what was verified before."""
    directory = cache / "templates" / wanted
    manifest = state_dir.read_json(directory / MANIFEST)
    if manifest is None:
        return None
    for name in (MANIFEST, *FILES):
        cache_dirs.check(cache, "templates", wanted, name)
    digests, sizes = manifest.get("sha256"), manifest.get("sizes")
    if not isinstance(digests, dict) or set(digests) != set(FILES) or sizes != _sizes(directory):
        return None
    wanted_files = {directory / name: str(digests[name]) for name in FILES}
    try:
        different = image_integrity.first_difference(wanted_files, notes)
    except OSError:  # removed meanwhile
        return None
    return None if different else Template(directory)


def begin(cache: Path) -> Path:
    """Return a new directory to make a template in. Only we may enter it, so that its memory may be
    readable for the user that clones run as."""
    cache_dirs.make(cache)
    cache_dirs.make(cache, "templates")
    made = cache / "templates" / f"{NEW}{os.urandom(6).hex()}"
    made.mkdir(mode=0o700)
    return made


def publish(
    made: Path, wanted: str, order: Order, notes: Path, *, of: Mapping[str, str]
) -> Template:
    """Give a made template its name. The manifest is written last, when all else is on the disk.
    Another of the same purpose goes: something that its key covers has changed. `of`: the image's
    name and the accelerator, which tell purposes apart too."""
    for name in FILES:
        path = made / name
        path.chmod(0o644 if name == RAM else 0o600)
        if os.geteuid() == 0:
            os.chown(path, 0, 0)
        _sync(path)
    digests = {name: digest_of(made / name) for name in FILES}
    facts = {
        **purpose(order),
        "of": dict(of),
        "created": time.time(),
        "sizes": _sizes(made),
        "sha256": digests,
    }
    state_dir.write_json(made / MANIFEST, facts)
    _sync(made)
    final = made.with_name(wanted)
    for former in templates(made.parent.parent):
        if former.key == wanted or _same(_facts(former), facts):
            remove(former)
    made.rename(final)
    _sync(final.parent)
    image_integrity.first_difference({final / name: digests[name] for name in FILES}, notes)
    return Template(final)


def _sizes(directory: Path) -> dict[str, int]:
    """Return the bytes of each file that is there: one that was cut is known without reading."""
    found = {}
    for name in FILES:
        with contextlib.suppress(FileNotFoundError):
            found[name] = (directory / name).stat().st_size
    return found


def purpose(order: Order) -> dict[str, Any]:
    """Purpose of a template, in the words of a request."""
    assert order.shape is not None
    offer = order.offer
    spec = {
        "cpus": offer.cpus,
        "memory": offer.memory,
        "disk": offer.disk,
        "image": offer.image,
        "network": order.network.inside.value,
    }
    return {"spec": spec, "shape": asdict(order.shape)}


def note_wanted(cache: Path, key: str, order: Order) -> bool:
    """Note that a build would have started from this template, had there been one. Return True if
    it is the first that did."""
    facts, note = purpose(order), cache / "templates" / f"{key}{_WANTED}"
    with contextlib.suppress(OSError):  # a cache that is another's, and may only be read
        first = not note.exists()
        cache_dirs.make(cache, "templates")
        state_dir.write_json(note, facts)
        return first
    return False


def former(cache: Path, order: Order, of: Mapping[str, str]) -> Template | None:
    """Return a template that was made for such orders and does not fit them: its image, QEMU or
    processor is another. `of`: as in `publish`."""
    facts = {**purpose(order), "of": dict(of)}
    return next((found for found in templates(cache) if _same(_facts(found), facts)), None)


def forget_wanted(cache: Path, key: str) -> None:
    (cache / "templates" / f"{key}{_WANTED}").unlink(missing_ok=True)


def wanted(cache: Path, *, now: float) -> list[tuple[Spec, Shape]]:
    """Requests noted in the last hours, the last first. Notes are removed once the template is
    there, its image is missing or they are old; and those that another version wrote."""
    found = []
    for at, note in _dated(cache):
        if not note.name.endswith(_WANTED):
            continue
        made = (note.with_name(note.name.removesuffix(_WANTED)) / MANIFEST).exists()
        try:
            facts = state_dir.read_json(note) or {}
            spec = {**facts["spec"], "network": Network(facts["spec"]["network"])}
            request = Spec(**spec), Shape(**facts["shape"])
        except (KeyError, TypeError, ValueError):
            request = None
        if made or request is None or now > at + _REMEMBERED or not _has_image(cache, facts):
            note.unlink(missing_ok=True)
        else:
            found.append(request)
    return found


def templates(cache: Path) -> list[Template]:
    """All complete templates, the last used first."""
    return [
        Template(entry)
        for _, entry in _dated(cache)
        if not entry.name.startswith(".") and (entry / MANIFEST).exists()
    ]


def remove(template: Template) -> None:
    """Remove it at once, or not at all. Clones keep what they have open."""
    rubbish = template.directory.with_name(f"{GONE}{template.key}.{os.urandom(4).hex()}")
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        template.directory.rename(rubbish)
    shutil.rmtree(rubbish, ignore_errors=True)


def trim(cache: Path, most: int, *, now: float, half_made: float) -> list[Template]:
    """Remove those whose image is gone, then those that were not used for longest until the rest
    takes at most `most` bytes, and what makers that died left. Returns the templates that went."""
    for at, entry in _dated(cache):
        expired = entry.name.startswith((NEW, GONE)) and now > at + half_made
        if expired and entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif expired or (entry.suffix in (_WANTED, LOCK) and now > at + _REMEMBERED):
            entry.unlink(missing_ok=True)
    total, removed = 0, []
    for template in templates(cache):
        gone = not _has_image(cache, _facts(template))
        total += 0 if gone else template.size
        if gone or total > most:
            remove(template)
            removed.append(template)
    return removed


def _facts(template: Template) -> dict[str, Any]:
    return state_dir.read_json(template.directory / MANIFEST) or {}


def _has_image(cache: Path, facts: dict[str, Any]) -> bool:
    return (cache / "images" / str(facts.get("spec", {}).get("image", ""))).is_dir()


def _same(first: dict[str, Any], other: dict[str, Any]) -> bool:
    """True if both were made for the same, of any image of that name."""

    def kept(facts: dict[str, Any]) -> Any:
        spec = {name: value for name, value in facts.get("spec", {}).items() if name != "image"}
        return spec, facts.get("shape"), facts.get("of")

    return bool(kept(first) == kept(other))


def _dated(cache: Path) -> list[tuple[float, Path]]:
    """Entries with their times in epoch seconds, newest first, without those removed meanwhile."""
    found = []
    for entry in _entries(cache):
        with contextlib.suppress(FileNotFoundError):
            found.append((entry.stat().st_mtime, entry))
    return sorted(found, reverse=True)


def _entries(cache: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        yield from list((cache / "templates").iterdir())


def _builds(qemu: Path) -> list[tuple[str, int, int]]:
    """Return the builds of QEMU and of its network: each one's file, size and time."""
    files = {qemu.resolve()}
    for pattern in _SLIRP:
        files |= {path.resolve() for path in Path("/").glob(pattern.removeprefix("/"))}
    return sorted((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def _host() -> str:
    """The host's processor as a guest under KVM sees it, and the kernel that shows it."""
    wanted = ("vendor_id", "cpu family", "model\t", "stepping", "microcode", "flags")
    return "\n".join([platform.release(), platform.version(), *_processor(wanted)])


def _clock() -> str:
    """The host's processor, as far as that says how fast its counter of ticks goes: an emulated
    guest has that very counter, and learned its pace when the template booted."""
    wanted = ["vendor_id", "cpu family", "model\t", "model name", "stepping"]
    if any(" hypervisor" in line for line in _processor(("flags",))):
        wanted.append("cpu MHz")  # in a VM it is the counter's; elsewhere it goes up and down
    return "\n".join(_processor(tuple(wanted)))


def _processor(wanted: tuple[str, ...]) -> list[str]:
    """Lines about the first processor that begin so."""
    lines = Path(CPUINFO).read_text().split("\n\n", 1)[0].splitlines()
    return sorted(line for line in lines if line.startswith(wanted))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
