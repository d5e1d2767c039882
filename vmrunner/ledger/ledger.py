"""The ledger: one door to all that must survive a crash."""

from __future__ import annotations

import logging
import secrets
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vmrunner.errors import ConfigError, LedgerError
from vmrunner.ledger import fork_safety
from vmrunner.ledger import upgrade as schema
from vmrunner.ledger.database import Database, Duplicate, shared
from vmrunner.ledger.encryption import Encryption, make_key
from vmrunner.ledger.restore_detection import RememberedState, RestoreDetector, place_of
from vmrunner.ledger.shared_writes import SharedWrites
from vmrunner.ledger.sql import Connection, select, update
from vmrunner.ledger.statements import Prepared, arg, inserts
from vmrunner.ledger.tables import INSTANCES, LEDGER
from vmrunner.ledger.urls import parse_url, sqlite_path
from vmrunner.lib import database_url, local_files

if TYPE_CHECKING:
    from vmrunner.ledger import backups
    from vmrunner.ledger.actions import Actions
    from vmrunner.ledger.budgets import Budgets
    from vmrunner.ledger.builds import Builds
    from vmrunner.ledger.caches import Caches
    from vmrunner.ledger.engines import Engines
    from vmrunner.ledger.events import Events
    from vmrunner.ledger.images import Images
    from vmrunner.ledger.instances import Instances
    from vmrunner.ledger.logs import Logs
    from vmrunner.ledger.metrics import LedgerMetrics
    from vmrunner.ledger.objects import Objects
    from vmrunner.ledger.old_rows import OldRows
    from vmrunner.ledger.open_rows import OpenRowsReader
    from vmrunner.ledger.outbox import Outbox
    from vmrunner.ledger.pools import Pools
    from vmrunner.ledger.prices import Prices
    from vmrunner.ledger.removals import Removals
    from vmrunner.ledger.sealed_values import SealedValues
    from vmrunner.ledger.settled_costs import SettledCosts
    from vmrunner.ledger.sightings import Sightings
    from vmrunner.ledger.spending import Spending
    from vmrunner.ledger.submitter_leases import SubmitterLeases
    from vmrunner.ledger.tokens import Tokens

log = logging.getLogger("vmrunner")

_l = LEDGER.c
_WHO = Prepared(lambda: select(_l.installation, _l.generation, _l.canary))
_NEW = inserts(LEDGER)
_PAUSED = Prepared(lambda: select(_l.paused_at))
_PAUSE = Prepared(lambda: update(LEDGER).values(paused_at=arg("at")))
_RENEW = Prepared(lambda: update(LEDGER).values(generation=arg("generation")))
_LAST = Prepared(lambda: select(INSTANCES.c.id).order_by(INSTANCES.c.id.desc()).limit(1))
_EPOCH = Prepared(lambda: select(INSTANCES.c.epoch).where(INSTANCES.c.id == arg("id")))
_CANARY = b"vmrunner"


@dataclass(frozen=True, slots=True)
class _Identity:
    installation: str
    generation: str
    canary: bytes


@dataclass(frozen=True, slots=True)
class LedgerState:
    """The tables at a URL. `version` of its tables, None: it has none; `pending`: the versions that
    they lack; `size`: bytes, None: unknown."""

    url: str
    version: str | None
    newest: str
    pending: tuple[str, ...]
    size: int | None


class _Visitor:
    """A user of a database that is not a ledger yet."""


class Ledger:
    """One ledger, open. Safe in threads; every method is one transaction, durable when it
    returns. Raises LedgerError when the database fails.

    `generation` is random for each new database, and anew for one that was set back or copied;
    `installation` outlives it."""

    def __init__(
        self,
        database: Database,
        seal: Encryption,
        witness: RestoreDetector,
        *,
        url: str,
        installation: str,
        generation: str,
    ) -> None:
        self.url = url
        self.installation = installation
        self.generation = generation
        self._database = database
        database.used_by(self)
        self._witness = witness
        self._seal = seal
        self._together = SharedWrites(database)

    # --- parts, each loaded when it is used: no command uses them all ---

    @cached_property
    def builds(self) -> Builds:
        from vmrunner.ledger.builds import Builds

        return Builds(self._database, self._seal, self._together)

    @cached_property
    def instances(self) -> Instances:
        from vmrunner.ledger.instances import Instances

        return Instances(self._database, self._seal, self._witness.note)

    @cached_property
    def pools(self) -> Pools:
        from vmrunner.ledger.pools import Pools

        return Pools(self._database, self._witness.note)

    @cached_property
    def actions(self) -> Actions:
        from vmrunner.ledger.actions import Actions

        return Actions(self._database)

    @cached_property
    def images(self) -> Images:
        from vmrunner.ledger.images import Images

        return Images(self._database)

    @cached_property
    def logs(self) -> Logs:
        from vmrunner.ledger.logs import Logs

        return Logs(self._database, self._together)

    @cached_property
    def metrics(self) -> LedgerMetrics:
        from vmrunner.ledger.metrics import LedgerMetrics

        return LedgerMetrics(self._database)

    @cached_property
    def objects(self) -> Objects:
        from vmrunner.ledger.objects import Objects

        return Objects(self._database)

    @cached_property
    def caches(self) -> Caches:
        from vmrunner.ledger.caches import Caches

        return Caches(self._database)

    @cached_property
    def outbox(self) -> Outbox:
        from vmrunner.ledger.outbox import Outbox

        return Outbox(self._database)

    @cached_property
    def removals(self) -> Removals:
        from vmrunner.ledger.removals import Removals

        return Removals(self._database)

    @cached_property
    def old_rows(self) -> OldRows:
        from vmrunner.ledger.old_rows import OldRows

        return OldRows(self._database)

    @cached_property
    def settled_costs(self) -> SettledCosts:
        from vmrunner.ledger.settled_costs import SettledCosts

        return SettledCosts(self._database)

    @cached_property
    def sealed(self) -> SealedValues:
        from vmrunner.ledger.sealed_values import SealedValues

        return SealedValues(self._database, self._seal)

    @cached_property
    def events(self) -> Events:
        from vmrunner.ledger.events import Events

        return Events(self._database, self._together)

    @cached_property
    def engines(self) -> Engines:
        from vmrunner.ledger.engines import Engines

        return Engines(self._database)

    @cached_property
    def sightings(self) -> Sightings:
        from vmrunner.ledger.sightings import Sightings

        return Sightings(self._database)

    @cached_property
    def submitter_leases(self) -> SubmitterLeases:
        from vmrunner.ledger.submitter_leases import SubmitterLeases

        return SubmitterLeases(self._database)

    @cached_property
    def tokens(self) -> Tokens:
        from vmrunner.ledger.tokens import Tokens

        return Tokens(self._database)

    @cached_property
    def prices(self) -> Prices:
        from vmrunner.ledger.prices import Prices

        return Prices(self._database)

    @cached_property
    def budgets(self) -> Budgets:
        from vmrunner.ledger.budgets import Budgets

        return Budgets(self._database)

    @cached_property
    def spending(self) -> Spending:
        from vmrunner.ledger.spending import Spending

        return Spending(self._database)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        data_dir: Path,
        secret_key: str | None = None,
        installation: str | None = None,
        make: bool = True,
    ) -> Ledger:
        """Open the ledger at `url`, and make it if it is SQLite and missing. One that does not lie
        in `data_dir` was named by a user, and may be mistyped: its directory is not made, nor
        itself without `make`.

        `data_dir` keeps the files `installation`, `witness` and `secret.key`; `secret_key` (the
        value of VMRUNNER_SECRET_KEY) is used instead of the last. Raises ConfigError when anything
        of it cannot be used: the message names the field and the value, the hint the fix.

        All that open the same ledger in one process share its connections."""
        parsed = parse_url(url)
        path = sqlite_path(parsed)
        with _making(path, data_dir, make=make):
            if schema.behind(schema.current(parsed)):
                if path is None:
                    raise ConfigError(
                        f"database.url: the ledger at {database_url.shown(url)} needs an upgrade",
                        hint="vmrunner db upgrade",
                    )
                schema.upgrade(parsed)
            database = shared(parsed)
            # In use from here on: its former user is closed when its garbage is collected,
            # perhaps now, and that would close it under our hands.
            visitor = _Visitor()
            database.used_by(visitor)
            try:
                local_files.ready_directory(
                    data_dir,
                    field="the ledger's files",
                    fix="see who owns it, or set XDG_DATA_HOME",
                )
                seal = _seal(data_dir, secret_key)
                identity = _identity(database, seal, data_dir, installation)
                witness = RestoreDetector(data_dir / "witness", place_of(path))
                generation = _recognised(database, witness)
                return cls(
                    database,
                    seal,
                    witness,
                    url=url,
                    installation=identity.installation,
                    generation=generation,
                )
            finally:
                database.let_go(visitor)

    def recognise(self) -> None:
        """See again whether this is the ledger that was opened. Its generation: it may be set back,
        or another server's, which lacks what was last. Its version: it may have been upgraded; then
        all of this process raises LedgerError, as though it were out of reach: nothing is launched
        or concluded, and what is past its deadline dies."""
        self._database.check(schema.difference)
        self.generation = _recognised(self._database, self._witness)

    def open_rows(self, *, images: bool = True) -> OpenRowsReader:
        """Return a new reader of what is open, for one who reads it again and again. `images`: see
        there."""
        from vmrunner.ledger.open_rows import OpenRowsReader

        return OpenRowsReader(self._database, images=images)

    def reading(self) -> AbstractContextManager[None]:
        """Let all that this thread reads meanwhile share a transaction, where that saves round
        trips to a server. What it writes meanwhile has its own."""
        return self._database.reading()

    def is_removed(self) -> bool:
        """True when the file of a SQLite ledger was deleted, or another is in its place: what is
        written is lost with us."""
        return self._database.is_removed

    def failover_risk(self) -> str:
        """A message about how a failover could lose what was committed; "": nothing known."""
        from vmrunner.ledger import replication

        return "" if self._database.sqlite else self._database.read(replication.risk)

    @staticmethod
    def upgrade(url: str) -> str:
        """Bring its tables to this code's version; returns that version."""
        parsed = parse_url(url)
        path = sqlite_path(parsed)
        with _making(path, path.parent if path else None):
            return schema.upgrade(parsed)

    @staticmethod
    def current(url: str) -> str | None:
        """The version of its tables; None when it has none."""
        parsed = parse_url(url)
        path = sqlite_path(parsed)
        if path is not None and not path.exists():
            return None
        with fork_safety.opening:
            return schema.current(parsed)

    @staticmethod
    def state(url: str) -> LedgerState:
        """See what is at `url`. Changes nothing, also where the tables are another version's."""
        parsed, shown = parse_url(url), database_url.shown(url)
        path = sqlite_path(parsed)
        newest = schema.known()[-1]
        if path is not None and not path.exists():
            return LedgerState(shown, None, newest, (), None)
        with fork_safety.opening:
            version, size = schema.state(parsed)
        if path is not None:
            files = (path, path.with_name(f"{path.name}-wal"))
            size = sum(file.stat().st_size for file in files if file.exists())
        pending = tuple(v for v in schema.known() if version is not None and v > version)
        return LedgerState(shown, version, newest, pending, size)

    def copy_to(self, file: Path) -> backups.LedgerCopy:
        """Copy all of it into a new file, as it is at one moment. Nothing waits for that."""
        from vmrunner.ledger import backups

        return backups.save(self._database, file)

    @staticmethod
    def in_place(url: str) -> backups.LedgerInPlace:
        """See what is at `url`, where a copy is to be put."""
        from vmrunner.ledger import backups

        parsed = parse_url(url)
        return backups.look(parsed, sqlite_path(parsed))

    @staticmethod
    def put_back(url: str, file: Path, *, version: str, gone: Iterable[str], now: float) -> None:
        """Put a copy in the place of the ledger at `url`, as another generation, of the newest
        version."""
        from vmrunner.ledger import backups

        parsed = parse_url(url)
        path = sqlite_path(parsed)
        with _making(path, path.parent if path else None):
            backups.put_back(parsed, path, file, version=version, gone=gone, now=now)
        Ledger.upgrade(url)

    @staticmethod
    def refuse_other_key(canary: bytes, *, data_dir: Path, secret_key: str | None) -> None:
        """Raises ConfigError unless the secret key here is that of the ledger with this canary."""
        path = data_dir / "secret.key"
        if secret_key is None and not path.exists():
            raise ConfigError(
                f"there is no {path}, which the ledger was sealed with, and no VMRUNNER_SECRET_KEY",
                hint="put it back from where you keep it: it is in no backup",
            )
        seal = _seal(data_dir, secret_key)
        if seal.unseal(canary) != _CANARY:
            raise ConfigError(f"{seal.source} is not the secret of this ledger")

    @property
    def paused(self) -> bool:
        """True if nothing is to be launched."""
        return self._database.look_up(_PAUSED) not in (None, (None,))

    def pause(self, on: bool, now: float) -> None:
        """Stop launching, or go on."""
        self._database.write(lambda c: _PAUSE(c, at=now if on else None))

    def close(self) -> None:
        """Let go of it; its connections close with the last that uses them in this process."""
        self._database.let_go(self)


@contextmanager
def _making(path: Path | None, data_dir: Path | None, *, make: bool = True) -> Iterator[None]:
    """Make a place for a SQLite ledger; while inside, it can be made or migrated."""
    if path is None:
        with fork_safety.opening:
            yield
        return
    ours = path.parent == data_dir
    fix = "name another with VMRUNNER_DATABASE_URL, or set XDG_DATA_HOME"
    local_files.ready_directory(path.parent, field="database.url", fix=fix, make=ours)
    if not (make or ours or path.exists()):
        raise ConfigError(
            f"database.url: there is no ledger at {path}",
            hint="`vmrunner db upgrade` or the first build makes it, unless it is mistyped",
        )
    local_files.refuse_network_disk(path.parent, Path("/proc/self/mounts").read_text())
    local_files.ready_file(path, field="database.url")
    # Other processes are waited for first: a fork waits for the thread that holds `opening`.
    with local_files.alone(path.parent), fork_safety.opening:
        yield


def _seal(data_dir: Path, secret_key: str | None) -> Encryption:
    if secret_key is not None:
        return Encryption(secret_key, source="VMRUNNER_SECRET_KEY")
    path = data_dir / "secret.key"
    secret = local_files.read_or_make(path, make_key())
    local_files.refuse_public(path)
    return Encryption(secret, source=str(path), file=path)


def _identity(
    database: Database, seal: Encryption, data_dir: Path, configured: str | None
) -> _Identity:
    """Read who this ledger is, or decide it for a new database; refuse what does not fit."""
    path = data_dir / "installation"
    kept = local_files.read(path)
    found = database.read(_read_identity)
    if found is None:
        name = configured or kept or str(uuid.uuid4())
        if configured is None and kept is None:
            name = local_files.read_or_make(path, name)
        found = _make_identity(database, seal, name)
    wanted, field = (configured, "installation") if configured else (kept, str(path))
    if wanted is not None and wanted != found.installation:
        raise ConfigError(
            f"{field} is {wanted}, but the ledger belongs to installation {found.installation}",
            hint=f'use the ledger of {wanted}, or set installation = "{found.installation}"',
        )
    # Its signature tells, without what unseals.
    if not seal.sealed(found.canary) and seal.unseal(found.canary) != _CANARY:
        raise ConfigError(f"{seal.source} is not the secret of this ledger")
    if kept != found.installation:
        local_files.replace(path, found.installation)
    return found


def _recognised(database: Database, witness: RestoreDetector) -> str:
    """The database's generation: a new one when it is not what this host remembers of it."""
    memory = witness.read()  # first: what is noted is committed before
    servers: set[str] = set()

    def look(connection: Connection) -> tuple[str, str, bool]:
        found = _read_identity(connection)
        if found is None:
            raise LedgerError("the ledger's database has lost its contents", hint="restart")
        last = _LAST(connection).scalar() or ""
        return found.generation, last, memory is not None and _knows(connection, memory)

    generation, last, recognised = database.read(look, servers=servers)
    if recognised and memory is not None and memory.place == witness.place:
        database.trust(servers)
        return generation
    new = secrets.token_hex(8)
    database.write(lambda c: _RENEW(c, generation=new), servers=servers)
    witness.note(last)
    database.trust(servers)
    if memory is not None and not recognised:
        log.warning(
            "the ledger does not know %s, which was started from it: it was set back. "
            "VMs that it does not know live until their deadlines",
            memory.instance,
        )
    return new


def _knows(connection: Connection, memory: RememberedState) -> bool:
    if not memory.instance:
        return True
    row = _EPOCH(connection, id=memory.instance).first()
    if row is None:
        from vmrunner.ledger import removed_vms

        return removed_vms.was_removed(connection, memory.instance)
    # One that cannot be read is there all the same.
    return not isinstance(row[0], int) or row[0] >= memory.epoch


def _read_identity(connection: Connection) -> _Identity | None:
    row = _WHO(connection).first()
    return None if row is None else _Identity(row[0], row[1], bytes(row[2]))


def _make_identity(database: Database, seal: Encryption, installation: str) -> _Identity:
    new = _Identity(installation, secrets.token_hex(8), seal.seal(_CANARY))
    try:
        database.write(
            lambda c: _NEW(
                c, id=1, installation=new.installation, generation=new.generation,
                canary=new.canary, paused_at=None, removed_vm=None,
            )
        )  # fmt: skip
    except Duplicate:  # another node made it in between
        made = database.read(_read_identity)
        assert made is not None
        return made
    return new
