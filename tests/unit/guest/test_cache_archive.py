"""Directories to tars and back, and what a hostile tar can do."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from vmrunner.guest.cache_archive import Bounded, NotCached, deadline, pack, unpack


def no_check() -> None:
    pass


def packed(root: Path, *, most: int = 1 << 20, gzip: bool = False) -> bytes:
    file = io.BytesIO()
    pack(str(root), Bounded(file, most), gzip=gzip, check=no_check)
    return file.getvalue()


def unpacked(data: bytes, root: Path, check: Callable[[], object] = no_check) -> None:
    unpack(io.BytesIO(data), str(root), check=check)


def tree(root: Path) -> dict[str, object]:
    """Kind, mode and content of all below, and the time of files."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        seen = path.lstat()
        content: object = str(path.readlink()) if path.is_symlink() else None
        if path.is_file() and not path.is_symlink():
            content = path.read_text(), int(seen.st_mtime)
        found[str(path.relative_to(root))] = oct(seen.st_mode), content
    return found


@pytest.fixture
def full(tmp_path: Path) -> Path:
    root = tmp_path / "full"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_text("one")
    (root / "a" / "tool").write_text("#!/bin/sh\n")
    (root / "a" / "tool").chmod(0o755)
    (root / ("ü" * 80)).write_text("long name")
    (root / "link").symlink_to("/etc/passwd")
    os.link(root / "a" / "tool", root / "twin")
    os.utime(root / "a" / "b" / "file", (1e9, 1e9))
    return root


@pytest.mark.parametrize("gzip", [False, True])
def test_what_is_packed_comes_out_the_same(full: Path, tmp_path: Path, gzip: bool) -> None:
    data = packed(full, gzip=gzip)
    assert (data[:2] == b"\x1f\x8b") is gzip
    unpacked(data, tmp_path / "new" / "place")
    assert tree(tmp_path / "new" / "place") == tree(full)
    assert (tmp_path / "new/place/twin").samefile(tmp_path / "new/place/a/tool")


def test_what_is_there_is_replaced_and_the_rest_stays(full: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    (place / "twin").mkdir(parents=True)
    (place / "twin" / "old").write_text("old")
    (place / "own").write_text("own")
    unpacked(packed(full), place)
    assert {**tree(full)}.keys() | {"own"} == tree(place).keys()
    assert (place / "twin").read_text() == "#!/bin/sh\n"


def test_sockets_and_fifos_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        (tmp_path / "file").write_text("x")
        with tarfile.open(fileobj=io.BytesIO(packed(tmp_path))) as tar:
            names = tar.getnames()
    assert names == [".", "file"]


def test_more_than_may_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(2 << 20))
    with pytest.raises(NotCached, match="larger than 1 MiB"):
        packed(tmp_path)


def test_nothing_is_packed_of_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotCached, match="no such directory"):
        packed(tmp_path / "none")
    with pytest.raises(NotCached, match="no directory"):
        packed(tmp_path / "file")


def hostile(*members: tuple[str, bytes, str]) -> bytes:
    """A tar of these: name, type, and what a link leads to or a file holds."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, kind, rest in members:
            info = tarfile.TarInfo(name)
            info.type, info.uid, info.gid = kind, os.getuid(), os.getgid()
            if kind == tarfile.REGTYPE:
                info.size = len(rest)
                tar.addfile(info, io.BytesIO(rest.encode()))
            else:
                info.linkname = rest
                tar.addfile(info)
    return file.getvalue()


FILE, LINK, HARD = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    "members",
    [
        [("../out", FILE, "x")],
        [("a/../../out", FILE, "x")],
        [("/etc/out", FILE, "x")],
        [("a//b", FILE, "x")],
        [("link", LINK, ".."), ("link/out", FILE, "x")],
        [("link", LINK, "../outside"), ("hard", HARD, "link/secret")],
        [("hard", HARD, "../outside/secret")],
    ],
)
def test_nothing_outside_is_written_or_linked(
    tmp_path: Path, members: list[tuple[str, bytes, str]]
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    before = tree(tmp_path / "outside")
    with pytest.raises(NotCached, match="it holds"):
        unpacked(hostile(*members), tmp_path / "place")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "place"]
    assert tree(tmp_path / "outside") == before
    assert list((tmp_path / "place").iterdir()) == []


def test_a_link_in_the_way_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    data = hostile(("name", LINK, str(tmp_path / "kept")), ("name", FILE, "new"))
    unpacked(data, tmp_path / "place")
    assert (tmp_path / "kept").read_text() == "kept"
    assert (tmp_path / "place" / "name").read_text() == "new"


def test_what_breaks_off_leaves_nothing(full: Path, tmp_path: Path) -> None:
    (full / "zz").write_bytes(bytes(100_000))
    with pytest.raises(tarfile.TarError):
        unpacked(packed(full)[:-50_000], tmp_path / "place")
    assert list((tmp_path / "place").iterdir()) == []


def test_the_time_is_bounded(full: Path, tmp_path: Path) -> None:
    with pytest.raises(NotCached, match="it took over"):
        unpacked(packed(full), tmp_path / "place", deadline(-1.0))


@pytest.mark.parametrize("number", [{"mtime": "1e30"}, {"uid": "1" * 30}])
def test_numbers_that_no_file_can_have_spoil_that_cache_alone(
    tmp_path: Path, number: dict[str, str]
) -> None:
    file = io.BytesIO()
    with tarfile.open(mode="w", fileobj=file, format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("file")
        info.uid, info.gid = os.getuid(), os.getgid()
        info.pax_headers = number
        tar.addfile(info, io.BytesIO())
    with pytest.raises(NotCached, match="no file can have"):
        unpacked(file.getvalue(), tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())
