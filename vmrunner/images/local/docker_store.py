"""Docker's store in an image, filled without a Docker: the images of a recipe's containers.

DIRECTORY/0.tar, 1.tar, …  layers as they lie in the store, the lowest first
DIRECTORY/store.json       what is known of them, and the image's own configuration, if any
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from vmrunner.errors import ImageError
from vmrunner.images.local import layers, pax_names
from vmrunner.images.local.layers import Layer, StoreRoot, Xattr
from vmrunner.images.recipe import Container, Docker

_FACTS: Final = "store.json"
_SHARED: Final = {  # directories with their modes
    "": 0o710,
    "image": 0o700,
    "image/overlay2": 0o700,
    "image/overlay2/imagedb": 0o700,
    "image/overlay2/imagedb/content": 0o700,
    "image/overlay2/imagedb/content/sha256": 0o700,
    "image/overlay2/imagedb/metadata": 0o700,
    "image/overlay2/imagedb/metadata/sha256": 0o700,
    "image/overlay2/layerdb": 0o700,
    layers.LAYERS: 0o755,
    "overlay2": 0o710,
    "overlay2/l": 0o700,
}
_LARGEST: Final = 8 << 20  # bytes of an image's manifest or configuration
_HUB: Final = ("docker.io/", "index.docker.io/")


def place(docker: Docker) -> StoreRoot:
    """Docker's store in a VM with these settings; the users of its namespace are those that
    packer/scripts/42-userns.sh gives it."""
    if docker.userns:
        return StoreRoot(root="var/lib/docker/100000.100000", first=100000)
    return StoreRoot(root="var/lib/docker")


@dataclass(frozen=True)
class Stored:
    """A container image as it lies in a stage. `config`: its own, byte by byte."""

    directory: Path
    layers: tuple[Layer, ...]
    config: bytes | None = None

    def note(self) -> None:
        """Write what is known of it, which says that it is complete."""
        config = None if self.config is None else base64.b64encode(self.config).decode()
        facts = {"layers": [asdict(layer) for layer in self.layers], "config": config}
        (self.directory / _FACTS).write_text(json.dumps(facts))

    @classmethod
    def read(cls, directory: Path) -> Stored:
        facts = json.loads((directory / _FACTS).read_text())
        found = tuple(
            Layer(**{**layer, "xattrs": tuple(Xattr(**xattr) for xattr in layer["xattrs"])})
            for layer in facts["layers"]
        )
        config = facts["config"]
        return cls(directory, found, None if config is None else base64.b64decode(config))

    def tar(self, number: int) -> Path:
        """The layer of this number, as a tar of the VM's root without its end."""
        return self.directory / f"{number}.tar"


def from_root(source: IO[bytes], directory: Path, name: str, at: StoreRoot) -> Stored:
    """An image of one layer: the root whose tar is read from `source`. `name`: tells it apart."""
    stored = Stored(directory, ())
    with stored.tar(0).open("wb") as to:
        layer = layers.write(source, to, cache=_cache(name), below=(), place=at)
    return Stored(directory, (layer,))


def from_archive(archive: Path, directory: Path, at: StoreRoot) -> Stored:
    """The image of an archive as `docker save` writes them. Raises ImageError where it is none."""
    stored = Stored(directory, ())
    try:
        with tarfile.open(archive, "r:") as tar:
            manifest = json.loads(_member(tar, "manifest.json"))[0]
            config = _member(tar, manifest["Config"])
            diffs = json.loads(config)["rootfs"]["diff_ids"]
            found: list[Layer] = []
            for number, (name, diff) in enumerate(zip(manifest["Layers"], diffs, strict=True)):
                source = tar.extractfile(name)
                if source is None:
                    raise ImageError(f"{archive.name}: {name} is no file")
                chain = layers.chain_of(diff, found[-1].chain if found else None)
                with stored.tar(number).open("wb") as to:
                    layer = layers.write(source, to, cache=_cache(chain), below=found, place=at)
                if layer.diff != diff:
                    raise ImageError(f"{archive.name}: layer {number} is {layer.diff}, not {diff}")
                found.append(layer)
    except (tarfile.TarError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ImageError(f"{archive.name}: no container image: {error!r}") from None
    return Stored(directory, tuple(found), config)


def write(images: Sequence[tuple[Container, Stored]], to: IO[bytes], at: StoreRoot) -> list[Xattr]:
    """Write a store with these images to a tar of the VM's root, without its end. Returns the
    attributes that its files get afterwards."""
    roots = [at.root] if at.first == 0 else [str(Path(at.root).parent), at.root]
    for root in roots[:-1]:
        layers.put(to, [layers.directory(root, 0o701)])
    names = {f"{at.root}/{name}".rstrip("/"): mode for name, mode in _SHARED.items()}
    layers.put(to, (layers.directory(n, mode, gid=at.first) for n, mode in names.items()))
    seen: set[str] = set()
    xattrs: list[Xattr] = []
    for _, stored in images:
        for number, layer in enumerate(stored.layers):
            if layer.chain not in seen:  # images share layers
                seen.add(layer.chain)
                xattrs += layer.xattrs
                with stored.tar(number).open("rb") as source:
                    pax_names.send(source, to, 0, os.fstat(source.fileno()).st_size)
    repositories: dict[str, dict[str, str]] = {}
    database = f"{at.root}/image/overlay2/imagedb"
    for container, stored in images:
        created = _moment(max((layer.newest for layer in stored.layers), default=0))
        config = stored.config or _config(container, stored.layers, created)
        digest = hashlib.sha256(config).hexdigest()
        layers.put_file(to, f"{database}/content/sha256/{digest}", config, 0o600)
        noted = f"{database}/metadata/sha256/{digest}"
        layers.put(to, [layers.directory(noted, 0o700)])
        layers.put_file(to, f"{noted}/lastUpdated", created.encode(), 0o600)
        name = _familiar(container.name)
        repository = name.rpartition(":")[0]
        repositories.setdefault(repository, {})[name] = f"sha256:{digest}"
    names_file = json.dumps({"Repositories": repositories}, separators=(",", ":")).encode()
    layers.put_file(to, f"{at.root}/image/overlay2/repositories.json", names_file, 0o600)
    return xattrs


def _config(container: Container, found: Sequence[Layer], created: str) -> bytes:
    """The configuration of an image that was made here."""
    env = [f"{name}={value}" for name, value in sorted(container.env.items())]
    config: Mapping[str, Any] = {
        "architecture": "amd64",
        "config": {"Cmd": list(container.command), "Env": env},
        "created": created,
        "history": [{"created": created, "comment": container.origin}],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.diff for layer in found]},
    }
    return json.dumps(config, separators=(",", ":")).encode()


def _familiar(name: str) -> str:
    """An image's name as Docker shows and keeps it: without Docker Hub's own address."""
    for hub in _HUB:
        name = name.removeprefix(hub)
    official = name.removeprefix("library/")
    return name if "/" in official else official


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    content = b"" if file is None else file.read(_LARGEST + 1)
    if not 0 < len(content) <= _LARGEST:
        raise ValueError(f"{name} has {len(content)} bytes")
    return content


def _cache(name: str) -> str:
    return hashlib.sha256(f"vmrunner {name}".encode()).hexdigest()


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
