"""Builds: submitted, found, cancelled, extended. What their owner writes is in `build_writes`."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any, Final

from vmrunner.errors import ConfigError, Conflict, NotFound
from vmrunner.ledger import build_listing
from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.build_listing import BuildPage
from vmrunner.ledger.build_writes import EXTEND, READ, BuildWrites, fetch
from vmrunner.ledger.database import Database, Duplicate
from vmrunner.ledger.encryption import Encryption
from vmrunner.ledger.events import add_event, put_event
from vmrunner.ledger.labels import owned
from vmrunner.ledger.objects import referenced_source
from vmrunner.ledger.row_reading import Readable, RecentRows, RowCache, readable
from vmrunner.ledger.shared_writes import SharedWrites
from vmrunner.ledger.sql import ColumnElement, Connection, Statement, func, or_, select, update
from vmrunner.ledger.statements import Prepared, arg, inserts, run
from vmrunner.ledger.tables import BUILDS, LABELS
from vmrunner.ledger.tokens import refuse_more
from vmrunner.model import (
    LOCAL_TENANT,
    BuildChoice,
    BuildRecord,
    BuildSpec,
    BuildState,
    EventKind,
    Process,
    Reason,
    Result,
)

_b = BUILDS.c
_LISTED: Final = 1024  # builds of lists that are kept decoded
_LISTED_SIZE: Final = 8 << 10  # characters of each
_END = "~"  # sorts after all that an id is made of

_INSERT = inserts(
    BUILDS, "id", "name", "idempotency_key", "provider", "priority", "state", "state_since",
    "created_at", "phases", "submitter", "spec", "secrets", "attempt", "owner_until", "epoch",
    "steps_started", "cost", "events", "chunks", "log_lines", "log_bytes", "message", "tenant",
    "actor", "lease_until", "source_object", "keep_logs", returning=codec.BUILD,
)  # fmt: skip
#: What was ours to lose may be tried again by its key; the build that lost it keeps all else.
_FREE_KEY = Prepared(
    lambda: (
        update(BUILDS)
        .where(
            _b.tenant == arg("tenant"),
            _b.idempotency_key == arg("key"),
            _b.state == BuildState.FINISHED.value,
            _b.result == Result.ERROR.value,
        )
        .values(idempotency_key=None)
    )
)
_FRESH: Mapping[str, Any] = {
    "state": BuildState.QUEUED.value,
    "attempt": 0,
    "owner_until": 0.0,
    "epoch": 0,
    "steps_started": False,
    "cost": 0.0,
    "events": 0,
    "chunks": 0,
    "log_lines": 0,
    "log_bytes": 0,
    "message": "",
}
_INSERT_LABEL = inserts(LABELS)
_BY_KEY = Prepared(
    lambda: select(*codec.BUILD).where(_b.tenant == arg("tenant"), _b.idempotency_key == arg("key"))
)


def _by_prefix(such: Iterable[ColumnElement[bool]] = ()) -> Statement:
    wanted = select(*codec.BUILD).where(_b.id >= arg("low"), _b.id < arg("high"), *such)
    return wanted.order_by(_b.id).limit(4)


def _by_name(such: Iterable[ColumnElement[bool]] = ()) -> Statement:
    wanted = select(*codec.BUILD).where(_b.name == arg("name"), *such)
    return wanted.order_by(_b.created_at.desc(), _b.id.desc()).limit(1)


_FIND = Prepared(_by_prefix), Prepared(_by_name)
_QUEUED = Prepared(
    lambda: (
        select(*codec.BUILD)
        .where(_b.state == BuildState.QUEUED.value)
        .order_by(_b.priority.desc(), _b.created_at, _b.id)
        .limit(arg("limit"))
    )
)
_QUEUED_AT = Prepared(
    lambda: (
        select(*codec.BUILD)
        .where(_b.state == BuildState.QUEUED.value, _b.provider == arg("provider"))
        .order_by(_b.priority.desc(), _b.created_at, _b.id)
        .limit(arg("limit"))
    )
)
_UNFINISHED: Final = _b.state != BuildState.FINISHED.value  # SQLite's index is for these words
_QUEUED_AFTER = Prepared(
    lambda: (
        select(*codec.BUILD)
        .where(_b.state == BuildState.QUEUED.value, _UNFINISHED, _b.id > arg("after"))
        .order_by(_b.id)
        .limit(arg("limit"))
    )
)
_PROGRESS = Prepared(lambda: select(_b.events, _b.chunks, _b.state).where(_b.id == arg("id")))
_AWAITED = Prepared(
    lambda: select(_b.provider).where(_b.state == BuildState.QUEUED.value).distinct()
)
_DRIVEN = Prepared(
    lambda: (
        select(*codec.BUILD)
        .where(_UNFINISHED, or_(_b.state != BuildState.QUEUED.value, _b.cancel.is_not(None)))
        .order_by(_b.id)
    )
)
_NAME = Prepared(lambda: select(_b.name).where(_b.id == arg("id")))
_SECRETS = Prepared(lambda: select(_b.secrets).where(_b.id == arg("id")))
_CANCEL = Prepared(
    lambda: (
        update(BUILDS)
        .where(_b.id == arg("id"), _b.cancel.is_(None), _b.state != BuildState.FINISHED.value)
        .values(cancel=arg("reason"), cancelled_at=arg("now"), events=_b.events + 1)
        .returning(*codec.BUILD, _b.events)
    )
)


class Builds(BuildWrites):
    """All builds of this ledger."""

    def __init__(self, database: Database, seal: Encryption, shared: SharedWrites) -> None:
        super().__init__(database, shared)
        self._seal = seal
        self._running, self._queue = RowCache(codec.build), RowCache(codec.build)
        self._listed = RecentRows(codec.build, _LISTED, _LISTED_SIZE)

    def submit(
        self,
        spec: BuildSpec,
        *,
        id: str,  # noqa: A002
        now: float,
        submitter: Process | None = None,
        secrets: Mapping[str, bytes] | None = None,
        tenant: str = LOCAL_TENANT,
        actor: str = "",
        lease_until: float | None = None,
        most: int | None = None,
        source: str | None = None,
        traceparent: str = "",
    ) -> tuple[BuildRecord, bool]:
        """Queue it. (build, True) when it is new; (the existing one, False) when its idempotency
        key was used by the same tenant for the same spec, unless that build ended in an error of
        ours. Raises Conflict when it was used for another. With `lease_until` its client must renew
        that, or it ends. Raises QuotaUsedUp where `most` builds of its actor have not ended.
        `source`: the digest of one that the same tenant stored; raises NotFound where there is none
        any more, which is to be stored again. `traceparent`: the span that the build is of."""
        sealed = self._seal.seal(codec.secrets_bytes(secrets)) if secrets else None
        row = {
            **_FRESH,
            "id": id,
            "name": spec.name,
            "idempotency_key": spec.idempotency_key,
            "provider": spec.provider,
            "priority": spec.priority,
            "state_since": now,
            "created_at": now,
            "phases": codec.phase_text(BuildState.QUEUED, now),
            "submitter": codec.process_text(submitter) if submitter else None,
            "spec": codec.spec_text(spec),
            "secrets": sealed,
            "tenant": tenant,
            "actor": actor,
            "lease_until": lease_until,
            "keep_logs": spec.keep_logs,
        }
        labels = [{"build": id, "name": k, "value": v} for k, v in spec.labels.items()]

        def work(connection: Connection) -> BuildRecord:
            if spec.idempotency_key is not None:
                _FREE_KEY(connection, tenant=tenant, key=spec.idempotency_key)
            found = None if source is None else referenced_source(connection, tenant, source)
            new = _INSERT(connection, **row, source_object=found).first()
            assert new is not None
            if most is not None:
                refuse_more(connection, actor, most)
            _INSERT_LABEL.many(connection, labels)
            if traceparent:
                add_event(connection, id, EventKind.TRACE, now, traceparent=traceparent)
            return codec.build(new)

        try:
            return self._shared.write(work), True
        except Duplicate:
            if (existing := self.same(spec, tenant)) is None:
                raise Conflict(f"there is a build {id} already") from None
            return existing, False

    def same(self, spec: BuildSpec, tenant: str = LOCAL_TENANT) -> BuildRecord | None:
        """The tenant's build that has this one's idempotency key already. Raises Conflict when that
        one has other parameters."""
        key = spec.idempotency_key
        if key is None:
            return None
        row = self._database.look_up(_BY_KEY, tenant=tenant, key=key)
        build = codec.build(row) if row is not None else None
        if build is None or build.result is Result.ERROR:
            return None
        if build.spec != spec:
            names = (part.name for part in dataclasses.fields(spec))
            others = [name for name in names if getattr(build.spec, name) != getattr(spec, name)]
            raise Conflict(
                f"idempotency key {key!r} belongs to build {build.id}, which has other parameters: "
                f"{', '.join(others)}",
                hint="use another key for another build",
            )
        return build

    def get(self, build_id: str) -> BuildRecord:
        """Raises NotFound."""
        return codec.found_build(self._database.look_up(READ, id=build_id), build_id)

    def get_all(self, build_ids: Iterable[str]) -> list[BuildRecord]:
        """Return several, in that order. Raises NotFound."""
        return self._database.read(lambda c: [fetch(c, name) for name in build_ids])

    def names(self, build_ids: Collection[str]) -> dict[str, str]:
        """The names of these builds, by id, as far as they are there and have one."""
        found = self._database.read(
            lambda c: {each: _NAME(c, id=each).scalar() for each in build_ids}
        )
        return {build: name for build, name in found.items() if name}

    def find(self, word: str, own: Mapping[str, str] | None = None) -> BuildRecord:
        """Find a build by id, by name (the newest of that name), or by the beginning of an id, with
        or without its `b-`; only among those of the principal with the label filter `own`. Raises
        NotFound, and Conflict when several ids begin so."""
        by_prefix, by_name = _FIND
        if own:
            such = owned(own)
            by_prefix, by_name = (
                Prepared(partial(_by_prefix, such)),
                Prepared(partial(_by_name, such)),
            )

        def work(connection: Connection) -> BuildRecord:
            for low in (word, f"b-{word}"):
                rows = by_prefix(connection, low=low, high=low + _END).all()
                if rows and rows[0][0] == low:
                    return codec.build(rows[0])
                if low == word:
                    named = by_name(connection, name=word).first()
                    if named is not None:
                        return codec.build(named)
                if len(rows) == 1:
                    return codec.build(rows[0])
                if rows:
                    some = ", ".join(row[0] for row in rows[:3])
                    raise Conflict(
                        f"several builds begin with {word!r}: {some}", hint="write more of the id"
                    )
            raise NotFound(f"there is no build {word!r}", hint="vmrunner ps -a lists all")

        if not word:
            raise NotFound("an empty word names no build")
        return self._database.read(work)

    def queued(self, limit: int = 1000, *, provider: str | None = None) -> list[BuildRecord]:
        """Waiting builds, of all providers or of one: higher priority first, then older first."""
        if provider is None:
            return self._database.read(lambda c: self._queue.read(_QUEUED(c, limit=limit).all()))
        return self._database.read(
            lambda c: readable(codec.build, _QUEUED_AT(c, provider=provider, limit=limit).all())
        )

    def queued_after(self, build_id: str, limit: int) -> list[BuildRecord]:
        """Return waiting builds after this id, in the order of ids: for a walk through all of
        them."""
        return self._database.read(
            lambda c: readable(codec.build, _QUEUED_AFTER(c, after=build_id, limit=limit).all())
        )

    def awaited(self) -> set[str]:
        """The providers that queued builds wait for."""
        return self._database.read(lambda c: {row[0] for row in _AWAITED(c).all()})

    def driven(self) -> Readable[BuildRecord]:
        """The builds that an engine has to mind: all that are neither waiting nor over, and those
        that wait and are cancelled."""
        return self._database.read(lambda c: self._running.read(_DRIVEN(c).all()))

    def progress(self, build_id: str) -> tuple[int, int, str]:
        """The progress of a build: the numbers of its events and chunks, and its state. Raises
        NotFound."""
        row = self._database.look_up(_PROGRESS, id=build_id)
        if row is None:
            raise NotFound(f"there is no build {build_id}")
        return row[0], row[1], row[2]

    def secrets(self, build_id: str) -> dict[str, bytes]:
        """The values of its secrets; empty once it is over."""
        row = self._database.look_up(_SECRETS, id=build_id)
        sealed = row[0] if row else None
        return codec.secrets_from(self._seal.unseal(bytes(sealed))) if sealed else {}

    def request_cancel(
        self, build_id: str, reason: Reason, now: float, *, by: str = ""
    ) -> BuildRecord:
        """Ask for its end, which its owner brings about. The first request stands; a finished build
        is returned as it is. `by`: who asks for it, for people. Raises NotFound."""

        def work(connection: Connection) -> BuildRecord:
            row = _CANCEL(connection, id=build_id, reason=reason.value, now=now).first()
            if row is None:
                return fetch(connection, build_id)
            put_event(
                connection, build_id, row[-1], EventKind.CANCEL, now, reason=reason.value, by=by
            )
            return codec.build(row)

        return self._database.write(work)

    def extend(self, build_id: str, seconds: float, now: float, *, by: str = "") -> BuildRecord:
        """Keep a sandbox or a held build's VM so much longer, never past its deadline: see the
        build that is returned. Raises Conflict when it is neither, its VM dies already, it would
        not live longer, or even so its time would be over by `now`, the VM's provider's clock;
        NotFound; ConfigError unless `seconds` is more than 0.

        It is added to the end of the hold, so that of two at once none is lost. `by`: who asks for
        it, for people."""

        if seconds <= 0:
            raise ConfigError(f"by: {seconds:g} s is no longer life", hint="more than 0")

        def work(connection: Connection) -> BuildRecord:
            if not self._database.sqlite:  # before a reaper looks whether its VM is to die
                run(connection, select(_b.id).where(_b.id == build_id).with_for_update())
            row = EXTEND(connection, id=build_id, seconds=seconds, now=now).first()
            if row is None:
                raise _not_extended(fetch(connection, build_id), seconds, now)
            build = codec.build(row)
            add_event(
                connection, build_id, EventKind.EXTEND, now, hold_until=build.hold_until, by=by
            )
            return build

        return self._database.write(work)

    def counts(self, own: Mapping[str, str] | None = None) -> dict[str, int]:
        """The numbers of builds of the principal with this label filter, by state."""
        query = select(_b.state, func.count()).where(*owned(own or {})).group_by(_b.state)
        return self._database.read(lambda c: {row[0]: row[1] for row in run(c, query)})

    def open_counts(self, own: Mapping[str, str] | None = None) -> dict[str, int]:
        """The same of those that have not ended, of which there are few."""
        query = select(_b.state, func.count()).where(
            _b.state != BuildState.FINISHED.value, *owned(own or {})
        )
        return self._database.read(
            lambda c: {row[0]: row[1] for row in run(c, query.group_by(_b.state))}
        )

    def list(
        self,
        active: bool | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
        *,
        mine: bool = False,
    ) -> Readable[BuildRecord]:
        """Newest first. `active`: only those not finished (True) or finished (False); `mine`: only
        those that were not submitted over HTTP."""
        tenant = LOCAL_TENANT if mine else None
        return self.chosen(BuildChoice(active=active, labels=labels or {}, tenant=tenant), limit)

    def chosen(self, choice: BuildChoice, limit: int | None = None) -> Readable[BuildRecord]:
        """The first of them, newest first."""

        def work(connection: Connection) -> Readable[BuildRecord]:
            return readable(codec.build, build_listing.first(connection, choice, limit))

        return self._database.read(work)

    def page(self, choice: BuildChoice, limit: int, size: int) -> BuildPage:
        """The first of them, newest first: `limit` at most, and `size` bytes of their specs."""
        return self._database.read(
            lambda c: build_listing.read(c, choice, limit, size, self._listed), snapshot=True
        )


def _not_extended(build: BuildRecord, seconds: float, now: float) -> Conflict:
    """The reason why the hold of a build was not extended."""
    if build.finished and build.was_ready:
        return Conflict(f"sandbox {build.id} is over", hint="only one that lives can live longer")
    if build.state is not BuildState.HELD and not build.was_ready:
        return Conflict(
            f"build {build.id} is {build.state}, not held",
            hint="only a sandbox, or a VM that --keep-on-failure keeps, can be kept longer",
        )
    ago = now - (build.hold_until or now)
    if build.was_ready and ago < 0:
        return Conflict(
            f"sandbox {build.id} lives until its VM's deadline already",
            hint="a longer max_ttl when it is made",
        )
    if ago >= seconds:
        return Conflict(
            f"the hold of {build.id} ended {ago:.0f} s ago: {seconds:.0f} s more are over too",
            hint=f"extend it by more than {ago:.0f}s, while its VM is there",
        )
    return Conflict(
        f"the hold of build {build.id} is over: its VM is being deleted, or past its deadline",
        hint="only a VM that is there can be kept longer",
    )
