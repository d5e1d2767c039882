"""An image of one layer as a directory, by the OCI image layout: skopeo pushes it as it is."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, cast

_LEVEL: Final = 4  # of gzip: higher takes longer than it saves on the way
_TYPE: Final = "application/vnd.oci.image"


class _Hashed:
    """A file that is hashed while it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def write(
    to: Path,
    root: Path,
    files: Mapping[str, bytes],
    *,
    directories: Mapping[str, int],
    left_out: Callable[[str], bool],
    labels: Mapping[str, str],
    architecture: str,
) -> str:
    """Write the image of a root's tar and these files (which are programs where they begin with
    `#!`). Returns its digest."""
    blobs = to / "blobs/sha256"
    blobs.mkdir(parents=True)
    part = blobs / "layer"
    with part.open("wb") as file:
        packed = _Hashed(file)
        target = cast("IO[bytes]", packed)
        with gzip.GzipFile("", "wb", _LEVEL, target, mtime=0) as zipped:
            plain = _Hashed(cast("IO[bytes]", zipped))
            stream = cast("IO[bytes]", plain)
            with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as layer:
                _copy(root, layer, left_out)
                for member, content in _members(files, directories):
                    layer.addfile(member, content)
    part.rename(blobs / packed.digest.partition(":")[2])
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Labels": dict(labels), "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [plain.digest]},
    }
    layer_size = (blobs / packed.digest.partition(":")[2]).stat().st_size
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_TYPE}.manifest.v1+json",
        "config": _blob(blobs, config, f"{_TYPE}.config.v1+json"),
        "layers": [
            {
                "mediaType": f"{_TYPE}.layer.v1.tar+gzip",
                "digest": packed.digest,
                "size": layer_size,
            }
        ],
    }
    entry = _blob(blobs, manifest, f"{_TYPE}.manifest.v1+json")
    (to / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (to / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(entry["digest"])


def layer(directory: Path) -> Path:
    """The file of such an image's layer."""
    index = json.loads((directory / "index.json").read_text())
    manifest = json.loads(_file(directory, index["manifests"][0]).read_text())
    return _file(directory, manifest["layers"][0])


def digest(directory: Path) -> str:
    """The digest of such an image."""
    index = json.loads((directory / "index.json").read_text())
    return str(index["manifests"][0]["digest"])


def _file(directory: Path, entry: Mapping[str, Any]) -> Path:
    return directory / "blobs/sha256" / str(entry["digest"]).partition(":")[2]


def _blob(blobs: Path, document: Mapping[str, Any], kind: str) -> dict[str, Any]:
    data = json.dumps(document, sort_keys=True).encode()
    name = hashlib.sha256(data).hexdigest()
    (blobs / name).write_bytes(data)
    return {"mediaType": kind, "digest": f"sha256:{name}", "size": len(data)}


def _copy(root: Path, layer: tarfile.TarFile, left_out: Callable[[str], bool]) -> None:
    with tarfile.open(root) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if name and not left_out(name):
                layer.addfile(member, tar.extractfile(member) if member.isreg() else None)


def _members(
    files: Mapping[str, bytes], directories: Mapping[str, int]
) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    above = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    for name, mode in sorted({**dict.fromkeys(above, 0o755), **directories}.items()):
        member = tarfile.TarInfo(name)
        member.type, member.mode = tarfile.DIRTYPE, mode
        yield member, None
    for name, data in sorted(files.items()):
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o755 if data.startswith(b"#!") else 0o644
        yield member, io.BytesIO(data)
