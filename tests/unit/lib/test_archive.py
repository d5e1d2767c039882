"""Packing a directory, and extracting what an attacker packed."""

from __future__ import annotations

import gzip
import io
import os
import socket
import tarfile
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmrunner.errors import ConfigError
from vmrunner.lib.archive.files import ArchiveCaps, extract, pack, stays_inside
from vmrunner.lib.archive.tar_reader import BadArchive, TarReader


def fill(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def packed(root: Path) -> tuple[bytes, list[str]]:
    buffer = io.BytesIO()
    pack(root, buffer)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        names = tar.getnames()
    return buffer.getvalue(), names


def forge(*members: tarfile.TarInfo | tuple[str, bytes], fmt: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=fmt) as tar:
        for member in members:
            if isinstance(member, tuple):
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
            else:
                buffer.write(member.tobuf(fmt))  # a header alone, true or not
                tar.offset = buffer.tell()
    return buffer.getvalue()


def special(name: str, kind: bytes, linkname: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = linkname
    info.size = size
    return info


def link(name: str, target: str) -> tarfile.TarInfo:
    return special(name, tarfile.SYMTYPE, target)


def pax(kind: bytes, **records: str) -> bytes:
    """An extended header: it comes before an entry, or (`g`) belongs to none."""
    lines = b""
    for key, value in records.items():
        line = f" {key}={value}\n".encode()
        size = next(n for n in range(len(line), len(line) + 20) if n == len(str(n)) + len(line))
        lines += str(size).encode() + line
    head = special("pax", kind, size=len(lines)).tobuf(tarfile.USTAR_FORMAT)
    return head + lines + bytes(-len(lines) % tarfile.BLOCKSIZE)


# --- packing ------------------------------------------------------------------------------------


def test_a_packed_tree_comes_out_the_same(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    deep = "/".join(["directory-with-a-long-name"] * 8)
    fill(source, {f"{deep}/file": "deep", "empty": "", "ünï": "text", "run.sh": "#!/bin/sh\n"})
    (source / "run.sh").chmod(0o4755)
    (source / "link").symlink_to("run.sh")
    (source / deep / "up").symlink_to("../../empty")
    data, _ = packed(source)
    total = extract(io.BytesIO(data), target, ArchiveCaps())
    assert total.size == len("deep") + len("text") + len("#!/bin/sh\n")
    assert (target / deep / "file").read_text() == "deep"
    assert (target / "ünï").read_text() == "text"
    assert (target / "link").readlink() == Path("run.sh")
    assert (target / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert int((target / "empty").stat().st_mtime) == int((source / "empty").stat().st_mtime)


def test_what_a_build_cannot_have_is_named(tmp_path: Path) -> None:
    for make, word in (
        (lambda p: os.mkfifo(p), "a FIFO"),
        (lambda p: p.symlink_to("/etc/passwd"), "leads outside"),
        (lambda p: p.symlink_to("../x"), "leads outside"),
    ):
        odd = tmp_path / "odd"
        make(odd)
        with pytest.raises(ConfigError, match=f"'odd'.*{word}"):
            pack(tmp_path, io.BytesIO())
        odd.unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        with pytest.raises(ConfigError, match="'s' is a socket"):
            pack(tmp_path, io.BytesIO())


# --- extracting ---------------------------------------------------------------------------------

HOSTILE = {
    "absolute": (forge(("/tmp/evil", b"x")), "absolute"),
    "dots": (forge(("a/../../evil", b"x")), r"'\.\.'"),
    "link then file through it": (
        forge(("d/x", b""), link("l", "d"), ("l/evil", b"x")),
        "'l/evil' goes through",
    ),
    "hard link": (forge(special("h", tarfile.LNKTYPE, "/etc/passwd")), "'h' is a hard link"),
    "sparse": (forge(special("s", b"S")), "'s' is a sparse file"),
    "unknown": (forge(special("u", b"Z")), "'u' is of an unknown kind"),
    "huge": (forge(special("big", tarfile.REGTYPE, size=1 << 50)), "'big' brings it to"),
    "file over directory": (forge(("d/x", b""), ("d", b"x")), "'d' is a directory already"),
    "directory over file": (forge(("d", b"x"), ("d/x", b"")), "goes through"),
    "deep": (forge(("/".join("d" * 100), b"")), "too long"),
    "long name": (forge(("x" * 300, b"")), "too long"),
    "file with a slash": (forge(("d/", b"x")), "a file with a directory's name"),
    "NUL in a name": (pax(b"x", path="a\0b") + forge(("f", b"")), "too long a path"),
    "directories that it only implies": (forge(("/".join("d" * 30), b"")), "more than 20 entries"),
    "cut": (forge(("f", b"x" * 5000))[:3000], "ends in the middle"),
    "no tar": (b"\x01" * 2048, "broken number|checksum"),
    "many": (forge(*((f"f{n}", b"") for n in range(30))), "more than 20 entries"),
    "large header": (forge(("x" * 70_000, b"")), "a header of"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_writes_nothing_outside(tmp_path: Path, name: str) -> None:
    data, message = HOSTILE[name]
    target = tmp_path / "in" / "target"
    with pytest.raises(BadArchive, match=message):
        extract(io.BytesIO(data), target, ArchiveCaps(unpacked=1 << 20, entries=20))
    assert [path.name for path in tmp_path.rglob("evil")] == []
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["target"]
    assert not Path("/tmp/evil").exists()


OMITTED = {
    "absolute link": (forge(link("l", "/etc"), ("l/x", b"x")), "the link 'l' leads outside"),
    "link up": (forge(link("l", ".."), ("l/x", b"x")), "the link 'l' leads outside"),
    "link chain": (
        forge(("l/x", b""), link("l/up", ".."), link("out", "l/up/../evil")),
        "the link 'out' leads outside",
    ),
    "NUL in a link": (
        pax(b"x", linkpath="a\0/etc") + forge(link("o", "a"), ("l/x", b"")),
        "the link 'o' leads outside",
    ),
    "device": (forge(special("n", tarfile.CHRTYPE), ("l/x", b"")), "'n' is a character device"),
    "block device": (forge(special("n", tarfile.BLKTYPE), ("l/x", b"")), "'n' is a block device"),
    "fifo": (forge(special("n", tarfile.FIFOTYPE), ("l/x", b"")), "'n' is a FIFO"),
    "hooks": (forge(("d/.Git/hooks/x", b"evil"), ("l/x", b"")), "'d/.Git' is git's own"),
    "link to hooks": (forge(link("h", ".git/hooks"), ("l/x", b"")), "'.git' is git's own"),
    "line's end": (forge(("a\n::b", b""), ("l/x", b"")), "'a\\n::b' has a control character"),
}


@pytest.mark.parametrize("name", OMITTED)
def test_what_nobody_takes_is_left_out_and_the_rest_comes(tmp_path: Path, name: str) -> None:
    data, why = OMITTED[name]
    total = extract(io.BytesIO(data), tmp_path, ArchiveCaps())
    assert total.omitted == (why,)
    files = [p for p in tmp_path.rglob("*") if not p.is_dir() or p.is_symlink()]
    assert {"x"} <= {p.name for p in files} <= {"x", "up"}
    assert total.entries == len(files)
    assert (tmp_path / "l" / "x").is_file()
    assert not (tmp_path / "l").is_symlink()


def test_git_s_own_comes_when_a_glob_names_it(tmp_path: Path) -> None:
    data = forge((".git/hooks/x", b"mine"), link("l", ".git/hooks"))
    total = extract(io.BytesIO(data), tmp_path, ArchiveCaps(), globs=[".git/hooks/*", "l"])
    assert total.omitted == ()
    assert (tmp_path / "l" / "x").read_bytes() == b"mine"


@pytest.mark.parametrize("path", [".envrc", "dist", "dist2/x", "a/dist/x"])
def test_what_was_not_asked_for_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(BadArchive, match=f"'{path}' is nothing that was asked for"):
        extract(
            io.BytesIO(forge((path, b"evil"))), tmp_path / "to", ArchiveCaps(), globs=["dist/*"]
        )
    assert list((tmp_path / "to").iterdir()) == []
    assert extract(io.BytesIO(forge(("dist/x/y", b""))), tmp_path, ArchiveCaps(), globs=["dist/*"])


def test_a_sparse_map_in_a_pax_header_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("s")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(1 << 50)}
    with pytest.raises(BadArchive, match="'s' is a sparse file"):
        extract(io.BytesIO(forge(info)), tmp_path, ArchiveCaps())


def test_a_file_from_before_1970_comes_too(tmp_path: Path) -> None:
    info = tarfile.TarInfo("old")
    info.mtime = -86400
    extract(io.BytesIO(forge(info, fmt=tarfile.GNU_FORMAT)), tmp_path, ArchiveCaps())
    assert (tmp_path / "old").stat().st_mtime == 0


def test_a_link_that_was_there_is_replaced_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    target = tmp_path / "target"
    data = forge(link("f", "elsewhere"), ("f", b"new"))
    target.mkdir()
    (target / "f").symlink_to(outside)
    extract(io.BytesIO(data), target, ArchiveCaps())
    assert outside.read_text() == "mine"
    assert not (target / "f").is_symlink()
    assert (target / "f").read_text() == "new"


def test_a_small_stream_that_unpacks_to_much_is_cut_off(tmp_path: Path) -> None:
    bomb = gzip.compress(forge(("zeros", bytes(8 << 20))))
    assert len(bomb) < 20_000
    with pytest.raises(BadArchive, match="'zeros' brings it to"):
        extract(io.BytesIO(bomb), tmp_path, ArchiveCaps(unpacked=1 << 20), gzip=True)
    with pytest.raises(BadArchive, match="more bytes than"):
        extract(io.BytesIO(bomb), tmp_path, ArchiveCaps(packed=1000, unpacked=1 << 30), gzip=True)
    assert extract(io.BytesIO(bomb), tmp_path, ArchiveCaps(), gzip=True).size == 8 << 20
    with pytest.raises(BadArchive):
        extract(io.BytesIO(b"no gzip at all"), tmp_path, ArchiveCaps(), gzip=True)


@pytest.mark.parametrize("kind", [b"g", b"x", b"L", b"K"])
def test_headers_that_belong_to_nothing_come_to_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes
) -> None:
    monkeypatch.setattr("vmrunner.lib.archive.tar_reader.EXTENSIONS", 1 << 20)
    header = pax(kind, comment="x" * 1000)
    ordinary = pax(b"g", comment="x" * 1000) * 100 + forge(("f", b""))
    assert extract(io.BytesIO(ordinary), tmp_path / "one", ArchiveCaps()).entries == 1
    bomb = gzip.compress(header * 2000 + forge(("f", b"")))
    with pytest.raises(BadArchive, match="1048576 bytes of headers"):
        extract(io.BytesIO(bomb), tmp_path / "two", ArchiveCaps(), gzip=True)


def test_of_a_header_only_what_is_used_is_kept() -> None:
    headers = (pax(b"x", **{f"key{i}-{n}": "x" for n in range(3000)}) for i in range(40))
    data = io.BytesIO(pax(b"x", path="f") + b"".join(headers) + pax(b"x", mtime="7.5"))
    data.seek(0, io.SEEK_END)
    data.write(forge(("g", b"")))
    data.seek(0)
    tracemalloc.start()
    try:
        entries = [(entry.path, entry.mtime) for entry in TarReader(data).entries()]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert entries == [(b"f", 7.5)]
    assert peak < 1 << 20


@given(data=st.binary(max_size=2000), at=st.integers(0, 4000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_no_bytes_crash_the_reader(tmp_path: Path, data: bytes, at: int) -> None:
    good = forge(("a", b"x" * 700), link("l", "a"), ("b" * 200, b"y"))
    at %= len(good)
    with suppress(BadArchive):
        extract(
            io.BytesIO(good[:at] + data + good[at + len(data) :]), tmp_path / "t", ArchiveCaps()
        )


@given(
    names=st.lists(
        st.text("ab/.é ", min_size=1, max_size=130).filter(
            lambda n: n.strip("/") == n and n.strip("/.") and ".." not in n.split("/")
        ),
        max_size=6,
    ),
    fmt=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_all_formats_of_names_are_read(names: list[str], fmt: int) -> None:
    data = forge(*((name, name.encode()) for name in names), fmt=fmt)
    reader = TarReader(io.BytesIO(data))
    seen = []
    for entry in reader.entries():
        content = io.BytesIO()
        reader.copy(content.write)
        seen.append((entry.path.decode(), content.getvalue()))
    assert seen == [(name, name.encode()) for name in names]


@pytest.mark.parametrize(
    ("path", "target", "inside"),
    [
        ("a", "b", True),
        ("d/a", "../b", True),
        ("d/a", "../../b", False),
        ("a", "/b", False),
        ("a", "b/../c", False),
        ("a", ".", True),
        ("a", "..", False),
        ("d/e/a", "../../x/y", True),
    ],
)
def test_links_climb_only_at_their_beginning(path: str, target: str, inside: bool) -> None:
    assert stays_inside(path, target) is inside
