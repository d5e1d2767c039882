"""Docker's store as we write it: each layer's tar can be told again byte by byte from what lies
there, as Docker does, and nothing that a layer names lies outside of it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vmrunner.errors import ImageError
from vmrunner.images.local import disk, docker_store, layers
from vmrunner.images.local.crc64 import crc64
from vmrunner.images.local.docker_store import Stored
from vmrunner.images.local.layers import Layer, StoreRoot, Xattr
from vmrunner.images.local.programs import ChildPrograms
from vmrunner.images.recipe import Container, Docker

AT = StoreRoot("var/lib/docker")
CACHE = "ab" * 32
CAPABILITY = base64.b64decode("AQAAAgAEAAAAAAAAAAAAAAAAAAA=")


def tar_of(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for member, content in members:
            member.size = len(content) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, 0o755, 1_700_000_000
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def written(
    tar: bytes, *, below: tuple[Layer, ...] = (), at: StoreRoot = AT
) -> tuple[Layer, bytes]:
    to = io.BytesIO()
    layer = layers.write(io.BytesIO(tar), to, cache=CACHE, below=below, place=at)
    return layer, to.getvalue() + b"\0" * 1024


def files(tar: bytes) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        found = {}
        for info in opened:
            file = opened.extractfile(info) if info.isreg() else None
            found[info.name] = (info, b"" if file is None else file.read())
    return found


def told_again(layer: Layer, store: bytes, at: StoreRoot = AT) -> bytes:
    """The layer's tar, put together from Docker's record and the files as Docker would."""
    stored_files = files(store)
    home = f"{at.root}/{layers.LAYERS}/{layer.chain.removeprefix('sha256:')}"
    tar = b""
    for line in gzip.decompress(stored_files[f"{home}/tar-split.json.gz"][1]).splitlines():
        entry = json.loads(line)
        if entry["type"] == 2:
            tar += base64.b64decode(entry["payload"])
        elif entry.get("size"):
            raw = entry.get("name", "").encode() or base64.b64decode(entry["name_raw"])
            path = os.path.normpath(raw.decode("utf-8", "surrogateescape")).lstrip("/")
            content = stored_files[f"{at.root}/overlay2/{layer.cache}/diff/{path}"][1]
            assert len(content) == entry["size"]
            assert base64.b64decode(entry["payload"]) == bytewise(content)
            tar += content
    return tar


def bytewise(content: bytes) -> bytes:
    """The same checksum by its definition: a bit at a time."""
    state = (1 << 64) - 1
    for byte in content:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (0xD800000000000000 if state & 1 else 0)
    return (state ^ ((1 << 64) - 1)).to_bytes(8, "big")


def test_the_checksum_is_the_one_that_go_has() -> None:
    assert crc64([b"123456789"]).hex() == "b90956c775a41001"  # of the catalogue of CRCs


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 15, 16, 17, 63, 1000, 4099])
def test_the_checksum_folds_blocks_of_any_size(size: int) -> None:
    content = bytes(number * 7 % 251 for number in range(size))
    assert crc64([content]) == bytewise(content)
    assert crc64([content[:5], content[5:]]) == bytewise(content)


def test_a_block_larger_than_what_is_folded_at_once() -> None:
    content = b"abc" * 50_000
    assert crc64([content]) == crc64([content[:65_537], content[65_537:]])


LONG = "d/" + "n" * 150


def every_kind() -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    yield member("./", kind=tarfile.DIRTYPE)
    yield member("./d/", kind=tarfile.DIRTYPE)
    yield member("./d/file", b"content" * 200)
    yield member("./d/empty")
    yield member("./" + LONG, b"long")
    yield member("./ő/ü", b"umlaut")  # its directory is not in the tar
    yield member("./bytes\udcff", b"no utf-8")
    yield member("./d/hard", kind=tarfile.LNKTYPE, linkname="./d/file")
    yield member("./d/soft", kind=tarfile.SYMTYPE, linkname="/etc/passwd")
    yield member("./dev", kind=tarfile.CHRTYPE, devmajor=1, devminor=3)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_layer_can_be_told_again_byte_by_byte(form: int) -> None:
    tar = tar_of(*every_kind(), form=form)
    layer, store = written(tar)
    assert layer.diff == layer.chain == f"sha256:{hashlib.sha256(tar).hexdigest()}"
    assert layer.newest == 1_700_000_000
    assert told_again(layer, store) == tar
    stored_files = files(store)
    top = f"var/lib/docker/overlay2/{CACHE}/diff"
    assert stored_files[f"{top}/ő"][0].isdir()
    assert stored_files[f"{top}/d/hard"][0].linkname == f"{top}/d/file"
    assert stored_files[f"{top}/d/soft"][0].linkname == "/etc/passwd"
    assert (stored_files[f"{top}/dev"][0].devmajor, stored_files[f"{top}/dev"][0].devminor) == (
        1,
        3,
    )
    link = stored_files[f"var/lib/docker/overlay2/{CACHE}/link"][1].decode()
    assert stored_files[f"var/lib/docker/overlay2/l/{link}"][0].linkname == f"../{CACHE}/diff"
    counted = stored_files[f"var/lib/docker/{layers.LAYERS}/{layer.chain[7:]}/size"][1]
    assert int(counted) == 1400 + len(b"longumlautno utf-8") + len("/etc/passwd")


def test_a_layer_on_others_hides_what_it_removed() -> None:
    below, _ = written(tar_of(member("gone", b"x")))
    tar = tar_of(
        member("d/", kind=tarfile.DIRTYPE), member("d/.wh..wh..opq"), member("d/.wh.gone", b"")
    )
    layer, store = written(tar, below=(below,))
    stored_files = files(store)
    top = f"var/lib/docker/overlay2/{CACHE}"
    mark = stored_files[f"{top}/diff/d/gone"][0]
    assert (mark.type, mark.devmajor, mark.devminor) == (tarfile.CHRTYPE, 0, 0)
    assert layer.xattrs == (Xattr(f"{top}/diff/d", "trusted.overlay.opaque", "y"),)
    assert stored_files[f"{top}/lower"][1].decode() == f"l/{below.link}"
    chain = hashlib.sha256(f"{below.chain} {layer.diff}".encode()).hexdigest()
    assert layer.chain == f"sha256:{chain}"
    assert stored_files[f"var/lib/docker/{layers.LAYERS}/{chain}/parent"][1].decode() == below.chain
    assert told_again(layer, store) == tar


@pytest.mark.parametrize(
    "members",
    [
        [member("../etc/passwd", b"x")],
        [member("a/../../../../etc/passwd", b"x")],
        [member("out", kind=tarfile.SYMTYPE, linkname="/etc"), member("out/passwd", b"x")],
        [member("in", kind=tarfile.LNKTYPE, linkname="../../../../../etc/shadow")],
        [member("in", kind=tarfile.LNKTYPE, linkname="/etc/shadow")],
        [member("s", kind=b"S")],
        [member("file", b"x"), member("file/below", b"x")],
    ],
)
def test_what_leads_out_of_a_layer_is_refused(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with pytest.raises(ImageError, match="layer"):
        written(tar_of(*members))


def test_a_tar_that_is_cut_is_refused() -> None:
    tar = tar_of(member("a", b"x" * 2000))
    for size in (700, 1500, 2500):
        with pytest.raises(ImageError, match="is cut"):
            written(tar[:size])


def test_ids_are_those_of_dockers_namespace() -> None:
    at = docker_store.place(Docker(userns=True))
    layer, store = written(tar_of(member("a", b"x", uid=7, gid=8)), at=at)
    placed = files(store)[f"{at.root}/overlay2/{layer.cache}/diff/a"][0]
    assert (placed.uid, placed.gid) == (100_007, 100_008)
    with pytest.raises(ImageError, match="not in Docker's namespace"):
        written(tar_of(member("a", b"x", uid=70_000)), at=at)


# --- images -------------------------------------------------------------------------------------


def archive(path: Path, *tars: bytes, damaged: bool = False) -> bytes:
    """An archive as `docker save` writes it; returns the image's configuration."""
    diffs = [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": diffs}}).encode()
    names = [f"{number}.tar" for number, _ in enumerate(tars)]
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": names}]).encode()
    contents = [tar.replace(b"hello", b"hallo") if damaged else tar for tar in tars]
    members = [member(name, tar) for name, tar in zip(names, contents, strict=True)]
    path.write_bytes(tar_of(*members, member("c.json", config), member("manifest.json", manifest)))
    return config


def stored(place: Path, *tars: bytes, **options: bool) -> Stored:
    place.mkdir()
    archive(place / "archive.tar", *tars, **options)
    made = docker_store.from_archive(place / "archive.tar", place, AT)
    made.note()
    assert Stored.read(place) == made
    return made


def test_images_share_layers_and_keep_their_names(tmp_path: Path) -> None:
    base, more = tar_of(member("a", b"hello")), tar_of(member("b", b"more"))
    layer = stored(tmp_path / "one", base)
    two = stored(tmp_path / "two", base, more)
    made = tmp_path / "made"
    made.mkdir()
    root = docker_store.from_root(io.BytesIO(tar_of(member("c", b"made"))), made, "made", AT)
    containers = [
        (Container(name="docker.io/library/python:3", pull="docker.io/library/python:3"), layer),
        (Container(name="quay.io:443/team/tool:1", pull="quay.io/team/tool:1"), two),
        (Container(name="debian:trixie", command=("sh", "-c", "x"), env={"A": "b c"}), root),
    ]
    path = tmp_path / "store.tar"
    with path.open("wb") as to:
        docker_store.write(containers, to, AT)
    with tarfile.open(path) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names)), "what two images have lies there once"
    stored_files = files(path.read_bytes() + b"\0" * 1024)
    kept = json.loads(stored_files["var/lib/docker/image/overlay2/repositories.json"][1])[
        "Repositories"
    ]
    assert set(kept) == {"python", "quay.io:443/team/tool", "debian"}
    database = "var/lib/docker/image/overlay2/imagedb/content/sha256"
    digest = kept["debian"]["debian:trixie"].removeprefix("sha256:")
    config = json.loads(stored_files[f"{database}/{digest}"][1])
    assert hashlib.sha256(stored_files[f"{database}/{digest}"][1]).hexdigest() == digest
    assert config["config"] == {
        "Cmd": ["sh", "-c", "x"],
        "Env": ["A=b c", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    }
    assert config["rootfs"]["diff_ids"] == [root.layers[0].diff]
    python = kept["python"]["python:3"].removeprefix("sha256:")
    assert stored_files[f"{database}/{python}"][1] == layer.config


def test_a_layer_other_than_its_image_says_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="layer 0 is"):
        stored(tmp_path / "x", tar_of(member("a", b"hello")), damaged=True)


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, tar_of(member("x", b"y"))])
def test_an_archive_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "archive.tar").write_bytes(content)
    with pytest.raises(ImageError, match=r"archive\.tar: no container image"):
        docker_store.from_archive(tmp_path / "archive.tar", tmp_path, AT)


def test_a_disk_has_names_owners_and_attributes_of_layers(tmp_path: Path) -> None:
    pax = {"SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape")}
    tar = tar_of(
        member("ő/", kind=tarfile.DIRTYPE),
        member("ő/.wh..wh..opq"),
        member('ő/a "b"', b"x", uid=7, gid=8, pax_headers={"SCHILY.xattr.user.kind": "ü"}),
        member("ping", b"x", pax_headers=pax),
    )
    layer, programs = layers, ChildPrograms()
    xattrs: list[Xattr] = []

    def content(to: Any) -> None:
        for path in ("var", "var/lib", "var/lib/docker", "var/lib/docker/overlay2"):
            layer.put(to, [layer.directory(path, 0o755)])
        layer.put(to, [layer.directory("var/lib/docker/overlay2/l", 0o700)])
        for depth in range(1, 5):
            path = "/".join(f"var/lib/docker/{layer.LAYERS}".split("/")[: 3 + depth])
            layer.put(to, [layer.directory(path, 0o700)])
        made = layer.write(io.BytesIO(tar), to, cache=CACHE, below=(), place=AT)
        xattrs.extend(made.xattrs)

    raw = tmp_path / "raw"
    disk.make(content, raw, 32 << 20, programs)
    disk.set_xattrs(raw, xattrs, tmp_path, programs)
    disk.check(raw, programs)

    def ask(request: str) -> str:
        done = subprocess.run(["debugfs", "-R", request, raw], capture_output=True, check=True)
        return done.stdout.decode()

    top = f"/var/lib/docker/overlay2/{CACHE}/diff"
    assert "trusted.overlay.opaque" in ask(f"ea_list {top}/ő")
    assert "user.kind (2) = c3 bc" in ask(f'ea_list "{top}/ő/a ""b"""')
    assert "security.capability (20) = 01 00 00 02" in ask(f"ea_list {top}/ping")
    assert "User:     7   Group:     8" in ask(f'stat "{top}/ő/a ""b"""')


def test_a_disk_whose_content_fails_is_not_made(tmp_path: Path) -> None:
    def content(to: Any) -> None:
        layers.put_file(to, "a", b"x" * 1_000_000, 0o644)
        raise ImageError("half way")

    with pytest.raises(ImageError, match="half way"):
        disk.make(content, tmp_path / "raw", 8 << 20, ChildPrograms())


def test_a_disk_that_is_too_small_is_told_by_mke2fs(tmp_path: Path) -> None:
    def content(to: Any) -> None:
        for number in range(64):
            layers.put_file(to, str(number), b"x" * 1_000_000, 0o644)

    with pytest.raises(ImageError, match="making the disk: mke2fs failed"):
        disk.make(content, tmp_path / "raw", 8 << 20, ChildPrograms())
