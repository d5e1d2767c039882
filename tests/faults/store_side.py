"""The store of a fault world, and what must be true of it: an object in memory for each that was
put, whose calls may fail as those of a bucket do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.faults.broken import Broken
from vmrunner.errors import LedgerError, NotFound, StoreError
from vmrunner.model import LOCAL_TENANT, BuildRecord, ObjectKind, ObjectState, StoredObject
from vmrunner.store import ListedObject, digest_of
from vmrunner.store.build_log import BuildLog
from vmrunner.store.put import put

if TYPE_CHECKING:
    from tests.faults.world import World
    from vmrunner.ledger import Ledger
    from vmrunner.providers.fake import Clock

DAY: Final = 86_400.0
#: So long what has no row stays, in these worlds.
KEEP: Final = 3 * DAY


class StoreFault(Enum):
    """What becomes of a call that fails: was it carried out?"""

    UNHEARD = "unheard"
    HEARD = "heard"


class MemoryStore:
    """Objects by name. `judge` says which call fails, and how; `skew` is what its clock is wrong
    by, in seconds."""

    url = "memory://store"
    local = False

    def __init__(self, clock: Clock) -> None:
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.judge: Callable[[], StoreFault | None] | None = None
        self.skew = 0.0
        self._clock = clock

    def put(self, name: str, source: Path, *, digest: str) -> None:
        assert digest_of(source) == digest
        assert name not in self.objects, "a name is written once"
        at = self._clock() + self.skew
        self._do(lambda: self.objects.update({name: (source.read_bytes(), at)}))

    def delete(self, name: str) -> None:
        self._do(lambda: self.objects.pop(name, None))

    def read(self, name: str, start: int = 0, size: int | None = None) -> Iterator[bytes]:
        if name not in self.objects:
            raise NotFound(name)
        yield self.objects[name][0][start : None if size is None else start + size]

    def list(self, prefix: str) -> Iterator[ListedObject]:
        for name, (data, modified) in sorted(self.objects.items()):
            if name.startswith(prefix):
                yield ListedObject(name=name, size=len(data), modified=modified)

    def path(self, _name: str) -> Path | None:
        return None

    def _do(self, work: Callable[[], object]) -> None:
        fault = self.judge() if self.judge is not None else None
        if fault is not StoreFault.UNHEARD:
            work()
        if fault is not None:
            raise StoreError("the test's store is out of reach")


def all_objects(world: World) -> list[tuple[StoredObject, bool]]:
    """Every row, and whether something points at it."""
    found, after = [], ""
    while page := world.truth.objects.page(after):
        found += page
        after = page[-1][0].name
    return found


def log_of(ledger: Ledger, store: MemoryStore, build: BuildRecord) -> bytes:
    """Its log, from wherever it lies."""
    reader, log, after = BuildLog(ledger, lambda: store, build.id), b"", 0
    while chunks := reader.read(after_seq=after):
        log += b"".join(chunk.data for chunk in chunks)
        after = chunks[-1].seq
    return log


def check_source(world: World, build: BuildRecord) -> None:
    """A build that is to begin has its source."""
    if build.source_object is not None and build.source_object not in world.store.objects:
        raise Broken(f"6 no forgotten source: that of {build.id} is gone")


def check_objects(world: World, *, settled: bool = False) -> None:
    """No row without its object; and once all has settled, no object without a row, and nothing
    that nothing points at."""
    rows = all_objects(world)
    names = world.store.objects.keys()
    for row, referenced in rows:
        if row.state is ObjectState.STORED and row.name not in names:
            raise Broken(f"6 no row without its object: {row}")
        if settled and not (referenced and row.state is ObjectState.STORED):
            raise Broken(f"6 nothing is left in the store: {row}")
    if settled and (strays := names - {row.name for row, _ in rows}):
        raise Broken(f"6 no object without a row: {strays}")


def leave_garbage(world: World) -> None:
    """What an upload left that broke off two days ago, and what nobody has a row of."""
    installation, began = world.truth.installation, world.clock() - 2 * DAY
    name = f"{installation}/{world.truth.generation}/log/b-x/1-1-x"
    world.truth.objects.begin(
        StoredObject(name=name, kind=ObjectKind.LOG, digest="", size=1, created_at=began)
    )
    world.store.objects[name] = b"x", began
    world.store.objects[f"{installation}/former/log/b-y/1-1-y"] = b"y", world.clock() - KEEP - DAY


def is_tidy(world: World) -> bool:
    """All is uploaded, and nothing is left to collect but what is young."""
    old = world.clock() - DAY
    rows = all_objects(world)
    names = {row.name for row, _ in rows}
    return (
        not world.truth.objects.logs_due(math.inf, 1)
        and not any(not referenced and row.created_at < old for row, referenced in rows)
        and all(name in names or at > old for name, (_, at) in world.store.objects.items())
    )


def settle_store(world: World) -> None:
    """Long after: what broke off half way is collected. Some process is there."""
    node = next(node for node in world.nodes if not node.dead and node.reaps)
    world.store.judge = None
    for turn in range(3):
        # The server that it was connected to may be the former primary: the next try finds the new.
        with suppress(LedgerError) if turn == 0 else nullcontext():
            node.store()
        world.clock.advance(KEEP + DAY)
        node.collect()
    check_objects(world, settled=True)


def stored_source(world: World, content: bytes) -> str | None:
    """Put a source as a submit does; its digest, or None where the store did not take it."""
    file = world.root / "packed-source"
    file.write_bytes(content)
    digest, objects = digest_of(file), world.truth.objects
    if objects.renewed_source(LOCAL_TENANT, digest, world.clock()) is not None:
        return digest
    try:
        source = put(
            world.truth, world.store, ObjectKind.SOURCE, file, digest=digest, now=world.clock()
        )
    except StoreError:
        return None
    return digest if objects.conclude_source(source.name, world.clock()) else None
