"""Pools: their rows, and what came to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from vmrunner.core.pools import shape_of
from vmrunner.errors import Unreadable
from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.actions import add_action
from vmrunner.ledger.build_writes import DYING
from vmrunner.ledger.pool_vms import PoolVms, lease, note_start
from vmrunner.ledger.row_reading import Readable, readable
from vmrunner.ledger.sql import Connection, case, delete, exists, func, or_, select, update
from vmrunner.ledger.statements import Prepared, arg, inserts
from vmrunner.ledger.tables import BUILDS, INSTANCES, POOL_PLACES, POOL_STARTS, POOLS
from vmrunner.model import BuildRecord, BuildState, EmptyReason, Instance, Pool, PoolPlace, PoolSpec

_b, _i, _p, _h, _s = BUILDS.c, INSTANCES.c, POOLS.c, POOL_PLACES.c, POOL_STARTS.c

_ROWS = Prepared(
    lambda: select(
        _p.name, _p.spec, _p.shape, _p.revision, _p.size, _p.draining, _p.named_at,
    ).order_by(_p.name)
)  # fmt: skip
_PLACES = Prepared(
    lambda: select(
        _h.pool, _h.place, _h.want, _h.empty_reason, _h.failures, _h.failing_since, _h.noted_at
    ).order_by(_h.pool, _h.place)
)
_SPEC = Prepared(lambda: select(_p.spec, _p.revision).where(_p.name == arg("name")))
_NEW = inserts(POOLS)
_REVISE = Prepared(
    lambda: update(POOLS)
    .where(_p.name == arg("name"), _p.revision == arg("seen"))
    .values(
        spec=arg("spec"), shape=arg("shape"), revision=_p.revision + 1, size=None, draining=False,
        named_at=arg("now"),
    )
)  # fmt: skip
_NAMED = Prepared(lambda: update(POOLS).where(_p.name == arg("name")).values(named_at=arg("now")))
_RESIZE = Prepared(
    lambda: update(POOLS).where(_p.name == arg("name")).values(size=arg("size"), draining=False)
)
_DRAIN = Prepared(lambda: update(POOLS).where(_p.name == arg("name")).values(draining=True))
_AT = (_h.pool == arg("pool"), _h.place == arg("place"))
_NOTE = Prepared(
    lambda: (
        update(POOL_PLACES)
        .where(*_AT)
        .values(
            want=arg("want"),
            empty_reason=arg("reason"),
            failures=arg("failures"),
            failing_since=arg("since"),
            noted_at=arg("now"),
        )
    )
)
_NEW_PLACE = inserts(POOL_PLACES)
_FORGET = Prepared(
    lambda: delete(POOLS).where(
        _p.name == arg("name"),
        _p.named_at < arg("before"),
        ~exists().where(_i.pool == _p.name, _i.build.is_(None), _i.state.not_in(DYING)),
    )
)
_FORGET_PLACES = Prepared(lambda: delete(POOL_PLACES).where(_h.pool == arg("name")))
#: Hosts that come and go leave a row each; one that was only away begins anew.
PLACE_KEPT: Final = 30 * 86_400.0  # seconds since it was last noted, which is each few minutes
_FORGET_OLD_PLACES = Prepared(
    lambda: delete(POOL_PLACES).where(_h.pool == arg("name"), _h.noted_at < arg("before"))
)
_COUNTS = Prepared(
    lambda: (
        select(_s.pool, func.count(), func.sum(case((_s.hit, 1), else_=0)))
        .where(_s.at >= arg("since"))
        .group_by(_s.pool)
    )
)
_STARTS = Prepared(
    lambda: (
        select(_s.at)
        .where(_s.pool == arg("pool"), _s.place == arg("place"), _s.at > arg("after"))
        .order_by(_s.at)
    )
)
_SERVED = Prepared(
    lambda: (
        select(_b.phases)
        .where(_b.id == _s.build, _s.pool == arg("pool"), _s.hit, _s.at >= arg("since"))
        .order_by(_s.at.desc())
        .limit(1000)
    )
)
_ROWS_SINCE = Prepared(
    lambda: select(*codec.INSTANCE).where(
        _i.pool.is_not(None),
        _i.pool == arg("pool"),
        or_(_i.gone_at.is_(None), _i.gone_at >= arg("since")),
    )
)
_STORED = Prepared(lambda: select(_h.arrivals).where(*_AT))
_STORE = Prepared(lambda: update(POOL_PLACES).where(*_AT).values(arrivals=arg("arrivals")))


class StartCounts(NamedTuple):
    """Builds that a pool is for: how many came, and how many of them got a VM of it."""

    builds: int = 0
    hits: int = 0


class Pools(PoolVms):
    """The pools of this ledger, and their VMs."""

    # --- the rows ---

    def all(self) -> Readable[Pool]:
        """Return all pools, by name."""
        rows, place_rows = self._database.read(lambda c: (_ROWS(c).all(), _PLACES(c).all()))
        return readable(lambda row: _pool(row, place_rows), rows)

    def declare(self, wanted: Mapping[str, PoolSpec], actor: str, now: float) -> None:
        """Take over a configuration, by name. A pool that differs from what is stored gets the next
        revision, which ends a size that was wished."""

        def work(connection: Connection) -> None:
            for name, spec in sorted(wanted.items()):
                text = codec.pool_spec_text(spec)
                row = _SPEC(connection, name=name).first()
                if row is None:
                    _NEW(
                        connection, name=name, spec=text, shape=shape_of(spec), revision=1,
                        size=None, draining=False, named_at=now, want=None, empty_reason=None,
                        arrivals="{}",
                    )  # fmt: skip
                elif row[0] != text and not _says(row[0], spec):
                    _REVISE(
                        connection, name=name, seen=row[1], spec=text, shape=shape_of(spec), now=now
                    )
                else:
                    continue
                add_action(connection, actor, "configure", lease(name), now)

        if wanted:
            self._database.write(work)

    def name(self, names: Iterable[str], now: float) -> None:
        """Say that a `serve` which lives has these in its configuration."""
        listed = sorted(names)
        if listed:
            self._database.write(lambda c: [_NAMED(c, name=name, now=now) for name in listed])

    def resize(self, name: str, size: int, actor: str, now: float) -> bool:
        """Wish another size, until the configuration changes. False: there is no such pool."""

        def write(connection: Connection) -> Any:
            return _RESIZE(connection, name=name, size=size)

        return self._change(name, actor, "resize", now, write, str(size))

    def drain(self, name: str, actor: str, now: float) -> bool:
        """End all its VMs that wait, and make none, until the configuration changes or it is
        resized. False: there is no such pool."""
        return self._change(name, actor, "drain", now, lambda c: _DRAIN(c, name=name))

    def note(self, name: str, state: PoolPlace) -> None:
        """Note how it is at one place."""
        reason = None if state.empty_reason is None else state.empty_reason.value

        def work(connection: Connection) -> None:
            where = {"pool": name, "place": state.place}
            changed = _NOTE(
                connection, **where, want=state.want, reason=reason, failures=state.failures,
                since=state.failing_since, now=state.noted_at,
            )  # fmt: skip
            if not changed.rowcount:
                _FORGET_OLD_PLACES(connection, name=name, before=state.noted_at - PLACE_KEPT)
                _NEW_PLACE(
                    connection, **where, want=state.want, empty_reason=reason,
                    failures=state.failures, failing_since=state.failing_since,
                    noted_at=state.noted_at, arrivals="{}",
                )  # fmt: skip

        self._database.write(work)

    def forget(self, name: str, before: float) -> None:
        """Forget a pool that no configuration has named since `before` and that has no VM."""

        def work(connection: Connection) -> None:
            if _FORGET(connection, name=name, before=before).rowcount:
                _FORGET_PLACES(connection, name=name)

        self._database.write(work)

    # --- what came of it ---

    def missed(self, builds: Sequence[tuple[BuildRecord, str, str]], now: float) -> None:
        """Note builds that a pool is for and that had to be started without it: (build, pool,
        place)."""

        def work(connection: Connection) -> None:
            for build, pool, place in builds:
                note_start(connection, build.id, pool, place, now, hit=False)

        if builds:
            self._database.write(work)

    def counts(self, since: float) -> dict[str, StartCounts]:
        """The builds that came to each pool since that time."""
        rows = self._database.read(lambda c: _COUNTS(c, since=since).all())
        return {name: StartCounts(builds, hits or 0) for name, builds, hits in rows}

    def arrivals(self, name: str, place: str, after: float) -> Sequence[float]:
        """The times at which builds that it is for were started at a place, after that time, in
        order."""
        return self._database.read(
            lambda c: [r[0] for r in _STARTS(c, pool=name, place=place, after=after).all()]
        )

    def served(self, name: str, since: float) -> Sequence[float]:
        """Seconds from queued to the first step of builds that got a VM of it, the latest 1000
        since that time."""
        rows = self._database.read(lambda c: _SERVED(c, pool=name, since=since).all())
        spans = []
        for (text,) in rows:
            moves = dict(line.split(" ") for line in text.splitlines())
            if BuildState.QUEUED in moves and BuildState.RUNNING in moves:
                spans.append(float(moves[BuildState.RUNNING]) - float(moves[BuildState.QUEUED]))
        return spans

    def stored_arrivals(self, name: str, place: str) -> str:
        """The stored arrivals of a place, as JSON; "{}": none yet."""
        row = self._database.look_up(_STORED, pool=name, place=place)
        return (row and row[0]) or "{}"

    def store_arrivals(self, name: str, place: str, arrivals: str) -> None:
        """Keep what was folded of a place's arrivals, JSON."""

        def work(connection: Connection) -> None:
            where = {"pool": name, "place": place}
            if not _STORE(connection, **where, arrivals=arrivals).rowcount:
                _NEW_PLACE(
                    connection, **where, want=None, empty_reason=None, failures=0,
                    failing_since=None, noted_at=0.0, arrivals=arrivals,
                )  # fmt: skip

        self._database.write(work)

    def instances(self, name: str, since: float) -> Sequence[Instance]:
        """Return its VMs, claimed or not, that were not gone by that time."""
        rows = self._database.read(lambda c: _ROWS_SINCE(c, pool=name, since=since).all())
        return readable(codec.instance, rows)

    # --- within ---

    def _change(
        self,
        name: str,
        actor: str,
        verb: str,
        now: float,
        write: Callable[[Connection], Any],
        detail: str = "",
    ) -> bool:
        def work(connection: Connection) -> bool:
            if not write(connection).rowcount:
                return False
            add_action(connection, actor, verb, lease(name), now, detail)
            return True

        return self._database.write(work)


def _says(text: str, spec: PoolSpec) -> bool:
    """True if a stored text, which may be of a version with fewer fields, says the same."""
    try:
        return codec.pool_spec_from(text) == spec
    except ValueError:
        return False


def _pool(row: Sequence[Any], place_rows: Sequence[Sequence[Any]]) -> Pool:
    """A row of `_ROWS`, with those of `_PLACES`. Raises Unreadable."""
    try:
        return Pool(
            spec=codec.pool_spec_from(row[1]),
            shape=row[2],
            revision=row[3],
            size=row[4],
            draining=bool(row[5]),
            named_at=float(row[6]),
            places=tuple(
                PoolPlace(
                    place=place[1],
                    want=place[2],
                    empty_reason=EmptyReason(place[3]) if place[3] else None,
                    failures=place[4],
                    failing_since=place[5],
                    noted_at=float(place[6]),
                )
                for place in place_rows
                if place[0] == row[0]
            ),
        )
    except Exception as error:
        raise Unreadable(f"the row of pool {row[0]} cannot be read: {error}") from error
