"""A log as one object: whatever its chunks, it is read as the ledger gave it."""

from __future__ import annotations

import hashlib
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.object_stores import store as store  # the fixture
from vmrunner.errors import StoreError
from vmrunner.ledger.logs import cut
from vmrunner.model import Chunk, ObjectKind, StoredObject
from vmrunner.services.logs import lines
from vmrunner.store import ObjectStore, log_object, open_store, trailer
from vmrunner.store.log_object import IndexCache, StoredLog, write_log
from vmrunner.store.log_object import _Entry as Entry

NAME = "i/g/log/b-1/1-1-a"
PIECES = st.lists(
    st.tuples(
        st.binary(max_size=6).map(lambda b: b.replace(b"\x00", b"\n")),
        st.floats(0, 2e9, allow_nan=False),
        st.integers(1, 3),
    ),
    max_size=10,
)


@pytest.fixture(autouse=True)
def _nothing_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_object, "_read_last", IndexCache())


def chunks_of(pieces: list[tuple[bytes, float, int]]) -> list[Chunk]:
    found, line, offset = [], 0, 0
    for seq, (data, time, attempt) in enumerate(pieces, start=1):
        offset += 2 * len(data)  # of the raw bytes, before the masking
        found.append(
            Chunk(seq=seq, attempt=attempt, time=time, offset=offset, line=line, data=data)
        )
        line += data.count(b"\n")
    return found


def stored(store: ObjectStore, root: Path, chunks: list[Chunk]) -> StoredLog:
    buffer = io.BytesIO()
    write_log(buffer, iter(chunks))
    file = root / "log"
    file.write_bytes(buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    store.delete(NAME)
    store.put(NAME, file, digest=digest)
    object_row = StoredObject(
        name=NAME, kind=ObjectKind.LOG, digest=digest, size=len(buffer.getvalue()), created_at=0.0
    )
    return StoredLog(store, object_row)


def test_an_index_is_read_once(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server reads a log anew for each part that it is asked for."""
    chunks = chunks_of([(b"one\n", 1.0, 1), (b"two\n", 2.0, 1)])
    log = stored(store, tmp_path, chunks)
    assert log.read() == chunks
    monkeypatch.setattr(log_object, "read_index", None)
    assert StoredLog(store, log._object).read() == chunks


def test_as_many_indexes_are_kept_as_have_room() -> None:
    cache, entries = IndexCache(most=3), [Entry(1, 1, 0.0, 0, 0, 0, 0, 0)]
    for name in ("a", "b", "b", "c"):
        cache.put(name, entries)
    assert cache.get("a") is entries
    cache.put("d", entries)
    assert [cache.get(name) for name in "abcd"] == [entries, None, entries, entries]
    cache.put("e", entries * 4)
    assert not any(cache.get(name) for name in "abcde")


def live(chunks: list[Chunk], after_line: int, after_seq: int, limit: int) -> list[Chunk]:
    """What `Logs.read` does."""
    after = after_seq
    if after_line > 0:
        ending = max((c.seq for c in chunks if c.line < after_line), default=1)
        after = max(after, ending - 1)
    return cut([c for c in chunks if c.seq > after][:limit], after_line)


@settings(max_examples=150)
@given(
    pieces=PIECES,
    after_line=st.integers(0, 12),
    after_seq=st.integers(0, 11),
    limit=st.integers(1, 11),
    span=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_any_chunking_is_read_as_from_the_ledger(
    pieces: list[tuple[bytes, float, int]],
    after_line: int,
    after_seq: int,
    limit: int,
    span: tuple[int, int],
) -> None:
    chunks = chunks_of(pieces)
    whole = b"".join(chunk.data for chunk in chunks)
    with tempfile.TemporaryDirectory() as directory:
        log = stored(open_store(f"file://{directory}/store"), Path(directory), chunks)
        assert log.read() == chunks
        found = cut(log.read(after_line, after_seq, limit), after_line)
        assert found == live(chunks, after_line, after_seq, limit)
        assert log.size == len(whole)
        start, stop = min(span), min(max(span), len(whole))
        assert b"".join(log.range(start, stop)) == whole[start:stop]
        lines_read = [(str(line), line.seq, line.time) for line in lines(log.read())]
        assert lines_read == [(str(line), line.seq, line.time) for line in lines(chunks)]


def test_it_is_read_in_parts(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_object, "_AT_ONCE", 100_000)
    monkeypatch.setattr(log_object, "RANGE_READ", 20_000)
    monkeypatch.setattr(trailer, "_TAIL", 64)  # the index does not fit in
    chunks = chunks_of([(b"line %d\n" % n * 500, float(n), 1) for n in range(200)])
    log = stored(store, tmp_path, chunks)
    read = []
    found: list[Chunk] = []
    while more := log.read(after_seq=found[-1].seq if found else 0):
        read.append(len(more))
        found += more
    assert found == chunks
    assert len(read) > 5
    assert log.read(after_line=90_001)[0].line <= 90_000
    whole = b"".join(chunk.data for chunk in chunks)
    pieces = list(log.range(123_456, 234_567))
    assert b"".join(pieces) == whole[123_456:234_567]
    assert 5 < len(pieces) < 15, "two or three chunks each"


@pytest.mark.parametrize("where", [3, -3, -60])
def test_a_damaged_log_is_never_shown(tmp_path: Path, where: int) -> None:
    store = open_store(f"file://{tmp_path}/store")
    log = stored(store, tmp_path, chunks_of([(b"one\n", 1.0, 1), (b"two\n", 2.0, 1)]))
    path = store.path(NAME)
    assert path is not None
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="other bytes"):
        log.read()
