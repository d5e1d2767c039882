"""What a sandbox's VM says and does, as the Python API takes it: nothing that harms the caller."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmrunner.api import sandbox_files
from vmrunner.api.sandbox import _teller, command_order
from vmrunner.api.sandbox_files import SandboxFiles
from vmrunner.api.sandbox_process import SandboxProcess
from vmrunner.errors import ConfigError, Conflict
from vmrunner.lib import dirfd
from vmrunner.model import CommandEnd, FileEntry, StreamName

pytestmark = pytest.mark.timeout(30)


class LyingFiles:
    """A sandbox that calls each file as it likes, and whose files have no end."""

    def __init__(self, path: str, pieces: int) -> None:
        self.path = path
        self.pieces = pieces
        self.kind = "file"
        self.tar: list[str] = []
        self.read: list[str] = []

    def stat_file(self, _: str) -> FileEntry:
        return FileEntry(name="x", path=self.path, kind=self.kind, size=1, mode=0o644, modified=0.0)

    def read_file(self, path: str, on_bytes: Callable[[bytes], object]) -> None:
        self.read.append(path)
        for _ in range(self.pieces):
            on_bytes(b"x" * 1000)

    def pack_files(self, _: str, on_bytes: Callable[[bytes], object]) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name in self.tar:
                tar.addfile(tarfile.TarInfo(name))
        on_bytes(packed.getvalue())

    @property
    def files(self) -> SandboxFiles:
        return SandboxFiles(self, contextlib.nullcontext)  # type: ignore[arg-type]


def test_no_name_on_this_host_comes_from_the_vm(tmp_path: Path) -> None:
    vm = LyingFiles("/work/.bashrc", pieces=1)
    assert vm.files.download("report.txt", tmp_path) == tmp_path / "report.txt"
    assert vm.read == ["/work/report.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["report.txt"]


def test_a_place_that_is_missing_is_told_by_its_name(tmp_path: Path) -> None:
    vm = LyingFiles("/work/a", pieces=1)
    with pytest.raises(ConfigError, match=r"to: .*/no is no directory \(make it first\)"):
        vm.files.download("a", tmp_path / "no/a")
    assert vm.read == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    vm = LyingFiles("/work/a", pieces=1)
    with pytest.raises(ConfigError, match="to: /proc/a cannot be written: No such file"):
        vm.files.download("a", "/proc/a")
    assert vm.read == []


def test_a_directory_is_not_copied_over_a_file(tmp_path: Path) -> None:
    vm = LyingFiles("/work/a", pieces=1)
    vm.kind = "dir"
    (tmp_path / "a").write_text("mine")
    with pytest.raises(ConfigError, match=r"to: .*/a is no directory"):
        vm.files.download("a", tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"


@pytest.mark.parametrize("kind", ["fifo", "link to it"])
def test_what_is_no_file_is_not_replaced_by_one(kind: str, tmp_path: Path) -> None:
    """As root `/dev/null` would be a file from then on."""
    vm = LyingFiles("/work/a", pieces=1)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link to it").symlink_to("fifo")
    with pytest.raises(ConfigError, match=rf"to: .*/{kind} is no file"):
        vm.files.download("a", tmp_path / kind)
    assert vm.read == []
    assert (tmp_path / "fifo").is_fifo()
    assert not any(map(dirfd.is_replaceable, map(Path, ("/dev/stdout", "/dev/fd/1", "/dev/null"))))


def test_a_downloaded_file_keeps_mode_and_long_name(tmp_path: Path) -> None:
    vm = LyingFiles("/work/a", pieces=1)
    target = tmp_path / ("n" * 255)
    target.touch(0o600)
    assert vm.files.download("a", target).stat().st_size == 1000
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("place", ["", None, b"a", "a\0b"])
def test_what_is_no_place_copies_nothing(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Path("")` is the current directory: all of it would go where a variable was not set."""
    monkeypatch.chdir(tmp_path)
    vm = LyingFiles("/work/a", pieces=1)
    with pytest.raises(ConfigError, match=r"source: .* is no path"):
        vm.files.upload(place)
    with pytest.raises(ConfigError, match=r"to: .* is no path"):
        vm.files.download("a", place)
    assert vm.read == []


def test_what_a_download_leaves_out_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vm = LyingFiles("/work/a", pieces=1)
    vm.kind = "dir"
    vm.tar = [".git/config", "a\tb", *(f"{number}\n" for number in range(20)), "c"]
    vm.files.download("a", tmp_path / "a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["c"]
    messages = [record.getMessage() for record in caplog.records]
    assert messages[:2] == [
        "/work/a: '.git' is git's own: left out",
        "/work/a: 'a\\tb' has a control character: left out",
    ]
    assert messages[-1] == "/work/a: 12 more: left out"


@pytest.mark.parametrize("most", ["5", None, 1.5, float("nan"), -1, True])
def test_what_is_no_bound_reads_nothing(most: Any) -> None:
    """Nothing is more than nan."""
    vm = LyingFiles("/work/a", pieces=1)
    with pytest.raises(ConfigError, match="most: "):
        vm.files.read("a", most=most)
    assert vm.read == []


def test_a_file_without_end_fills_neither_memory_nor_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = LyingFiles("/work/a", pieces=1_000_000)
    with pytest.raises(Conflict, match=r"a has more than 256\.0 MiB"):
        vm.files.read("a")
    monkeypatch.setattr(sandbox_files, "DISK", 0)
    with pytest.raises(Conflict, match=r"/work/a has more than 2\.0 KiB"):
        vm.files.download("a", tmp_path, most="2KiB")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", ["KILL", None, 1.5, True])
def test_what_is_no_signal_kills_nothing(number: Any, process: SandboxProcess) -> None:
    """`int(1.5)` is SIGHUP."""
    with pytest.raises(ConfigError, match=r"number: .* whole number"):
        process.kill(number)


@pytest.mark.parametrize("data", [5, None, "\ud800"])
def test_what_is_no_content_is_not_written(data: Any, process: SandboxProcess) -> None:
    """`bytes(5)` is five zeros."""
    for write in (lambda: LyingFiles("a", 1).files.write("a", data), lambda: process.write(data)):
        with pytest.raises(ConfigError, match="data: "):
            write()


class Reader:
    """A command that takes stdin as the VM does: what it has it does not take again."""

    def __init__(self) -> None:
        self.taken = b""
        self.over = False
        self.meet = threading.Barrier(2)
        self.fails_after: int | None = None

    def run(self, _: Any, on_output: Callable[[StreamName, bytes], object]) -> CommandEnd:
        for piece in (b"one\r\ntw", b"o", b"\n\nthr", b"ee"):
            on_output(StreamName.STDOUT, piece)
        return CommandEnd(exit_code=0)

    def send_input(self, _: str, offset: int, data: bytes, *, last: bool = False) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            self.meet.wait(0.2)  # for another that is not kept from coming
        data = data[len(self.taken) - offset :]
        if self.fails_after is not None:
            self.taken += data[: self.fails_after]
            self.fails_after = None
            raise KeyboardInterrupt
        self.taken += data
        self.over = last


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def process(reader: Reader) -> SandboxProcess:
    order = command_order("cat", env={}, stdin=True)
    return SandboxProcess(reader, order, contextlib.nullcontext)  # type: ignore[arg-type]


def test_what_threads_write_at_once_is_all_taken(process: SandboxProcess, reader: Reader) -> None:
    threads = [threading.Thread(target=process.write, args=(word,)) for word in ("aaa", "bbb")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reader.taken in (b"aaabbb", b"bbbaaa")


def test_a_write_that_was_broken_off_loses_no_byte(process: SandboxProcess, reader: Reader) -> None:
    reader.fails_after = 3
    with pytest.raises(KeyboardInterrupt):
        process.write("abcdef")
    with pytest.raises(Conflict, match="write of 6 bytes before was broken off"):
        process.write("xyz")
    process.write("abcdef")
    process.write("xyz")
    process.close_stdin()
    assert (reader.taken, reader.over) == (b"abcdefxyz", True)


def test_nothing_is_written_to_a_closed_stdin(process: SandboxProcess, reader: Reader) -> None:
    """It was counted and dropped; another close was then refused for the count."""
    process.write("abc")
    process.close_stdin()
    with pytest.raises(Conflict, match=r"stdin: it is closed \(write before close_stdin"):
        process.write("def")
    process.close_stdin()
    assert (reader.taken, reader.over) == (b"abc", True)


def test_lines_are_whole_however_they_come(process: SandboxProcess) -> None:
    assert list(process) == [b"one\r\n", b"two\n", b"\n", b"three"]


def test_text_is_told_to_the_last_byte_of_its_stream() -> None:
    lines: list[str] = []
    tell = _teller(lines.append)
    for data in (b"a\xe2", b"\x82\xac\xe2\x82", b""):
        tell(data)
    assert "".join(lines) == "a\u20ac\ufffd"
