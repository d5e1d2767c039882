"""The store over a directory, moto's S3 and a server that nobody here wrote."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.object_stores import bucket
from tests.support.object_stores import store as store  # the fixture
from vmrunner.errors import NotFound, StoreError
from vmrunner.store import ObjectStore, open_store, verified

NAME = "installation/generation/log/b-1/1-2-abcdef"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(store: ObjectStore, tmp_path: Path, data: bytes, name: str = NAME) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    store.put(name, file, digest=digest(data))


@pytest.mark.parametrize("size", [0, 1, 3_000_001])
def test_what_was_put_is_read_whole_and_in_part(
    store: ObjectStore, tmp_path: Path, size: int
) -> None:
    data = os.urandom(size)
    put(store, tmp_path, data)
    assert b"".join(verified(store.read(NAME), digest(data), NAME)) == data
    if size > 10:
        assert b"".join(store.read(NAME, 5, 1_500_000)) == data[5:1_500_005]
        assert b"".join(store.read(NAME, size - 4)) == data[-4:]
    assert b"".join(store.read(NAME, 0, 0)) == b""


def test_a_listing_shows_what_lies_below(store: ObjectStore, tmp_path: Path) -> None:
    names = [f"i/g{n % 2}/log/b-{n}/1-1-{n}" for n in range(6)]
    for name in names:
        put(store, tmp_path, name.encode(), name)
    assert sorted(stored.name for stored in store.list("i/")) == sorted(names)
    assert sorted(stored.name for stored in store.list("i/g1/")) == names[1::2]
    assert list(store.list("i/g/")) == list(store.list("other/")) == []
    found = next(iter(store.list("i/g0/log/b-0/")))
    assert found.size == len(names[0])
    assert abs(found.modified - (tmp_path / "file").stat().st_mtime) < 60


def test_a_deleted_object_is_gone_and_may_be_deleted_again(
    store: ObjectStore, tmp_path: Path
) -> None:
    put(store, tmp_path, b"x")
    store.delete(NAME)
    store.delete(NAME)
    with pytest.raises(NotFound, match=NAME):
        list(store.read(NAME))
    assert list(store.list("installation/")) == []


def test_bytes_of_another_hash_are_never_put(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StoreError, match="other bytes"):
        store.put(NAME, tmp_path / "file", digest=digest(b"y"))
    assert list(store.list("installation/")) == []


def test_a_hash_mismatch_breaks_the_transfer(store: ObjectStore, tmp_path: Path) -> None:
    put(store, tmp_path, b"x")
    with pytest.raises(StoreError, match="other bytes"):
        list(verified(store.read(NAME), digest(b"y"), NAME))


def test_a_file_and_its_new_directories_are_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    fsync = os.fsync

    def noting(fd: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noting)
    put(open_store(f"file://{tmp_path}/store"), tmp_path, b"x", "i/g/o")
    assert flushed[0] == f"{tmp_path}/store/i/g/o.part"
    assert set(flushed[1:]) == {
        str(tmp_path), f"{tmp_path}/store", f"{tmp_path}/store/i", f"{tmp_path}/store/i/g",
    }  # fmt: skip


def test_a_file_that_was_not_finished_is_no_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"file://{tmp_path}/store")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(StoreError, match="full"):
        put(store, tmp_path, b"x")
    assert [stored.name for stored in store.list("")] == []


def test_an_object_is_one_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    seen: list[tuple[str, int]] = []

    class Bucket(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            size = int(self.headers["Content-Length"])
            self.rfile.read(size)
            seen.append((self.headers["x-amz-checksum-sha256"], size))
            self.send_response(200)
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Bucket) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        put(open_store("s3://b", endpoint=endpoint, region="x"), tmp_path, bytes(20 << 20))
        server.shutdown()
        thread.join()
    assert [size for _, size in seen] == [20 << 20]
    assert seen[0][0], "S3 was not told the checksum"


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with bucket("nanio", tmp_path, monkeypatch) as endpoint:
        yield endpoint


def test_refusals_are_told_once_with_url_and_fix(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match=r"s3://none: .*cannot be put.*see whether") as caught:
        put(open_store("s3://none", endpoint=endpoint, region="us-east-1"), tmp_path, b"x")
    assert not isinstance(caught.value, NotFound)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="privileges"):
        put(open_store("s3://builds", endpoint=endpoint, region="us-east-1"), tmp_path, b"x")
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1"):
        open_store("s3://builds", endpoint="http://127.0.0.1:1", region="x").delete(NAME)


def test_a_forked_child_is_told_instead_of_left_waiting(endpoint: str, tmp_path: Path) -> None:
    store = open_store("s3://builds", endpoint=endpoint, region="us-east-1")
    store.delete(NAME)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            try:
                store.delete(NAME)
            except StoreError as error:
                os.write(writing, str(error).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    assert b"forked" in text


@pytest.mark.parametrize("empty", [False, True])
def test_a_variable_without_a_value_is_no_credential(
    monkeypatch: pytest.MonkeyPatch, empty: bool
) -> None:
    """The role is asked for, as boto3 does beside; obstore by itself signs with an empty key."""
    calls: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        """S3 and the metadata service, which refuse all."""

        def do_GET(self) -> None:
            calls.append((self.command, self.path))
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_GET  # noqa: N815 - its name

        def log_message(self, *_: object) -> None:
            pass

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        if empty:
            monkeypatch.setenv(name, "")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", url)
        try:
            found = open_store("s3://bucket/p", endpoint=url, region="eu-central-1")
            with pytest.raises(StoreError):
                list(found.list(""))
        finally:
            server.shutdown()
            thread.join()
    assert calls[0] == ("PUT", "/latest/api/token")


def test_only_variables_without_a_value_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CLIENT_ID", "")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("VMRUNNER_NOTHING", "")
    open_store("s3://bucket/p")
    assert not {"AZURE_CLIENT_ID", "GOOGLE_APPLICATION_CREDENTIALS"} & set(os.environ)
    assert {"AWS_REGION", "VMRUNNER_NOTHING"} <= set(os.environ)
