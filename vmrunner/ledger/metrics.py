"""Counts over all builds and instances, for metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.database import Database
from vmrunner.ledger.labels import owned
from vmrunner.ledger.sql import ColumnElement, Connection, Statement, func, select, tuple_
from vmrunner.ledger.statements import Prepared, arg
from vmrunner.ledger.tables import BUILDS, INSTANCES, PAST_COUNTS, POOL_STARTS, SIGHTINGS
from vmrunner.model import BuildState, BuildUsage, InstanceState, Phase

_b, _i, _s, _p, _o = BUILDS.c, INSTANCES.c, SIGHTINGS.c, POOL_STARTS.c, PAST_COUNTS.c
_over = _b.state == BuildState.FINISHED.value

_ENDED = Prepared(
    lambda: (
        select(_b.provider, _b.result, _b.reason, func.count())
        .where(_over)
        .group_by(_b.provider, _b.result, _b.reason)
    )
)
_UNENDED = Prepared(
    lambda: (
        select(_b.provider, _b.state, func.count()).where(~_over).group_by(_b.provider, _b.state)
    )
)
_OLDEST = Prepared(
    lambda: select(func.min(_b.created_at)).where(_b.state == BuildState.QUEUED.value)
)
_COST = Prepared(lambda: select(_b.provider, func.sum(_b.cost)).where(_over).group_by(_b.provider))
_PHASES = Prepared(
    lambda: (
        select(_b.finished_at, _b.id, _b.phases, _i.start, _b.provider, _b.usage)
        .join_from(BUILDS, INSTANCES, _b.instance == _i.id, isouter=True)
        .where(
            _b.finished_at >= arg("at"),
            tuple_(_b.finished_at, _b.id) > tuple_(arg("at"), arg("id")),
        )
        .order_by(_b.finished_at, _b.id)
        .limit(arg("limit"))
    )
)


def _ended_since(such: Iterable[ColumnElement[bool]] = ()) -> Statement:
    wanted = select(_b.finished_at, _b.result, _b.phases).where(_b.finished_at >= arg("moment"))
    return wanted.where(*such).order_by(_b.finished_at.desc()).limit(arg("limit"))


_ENDED_SINCE = Prepared(_ended_since)
_DEATHS = Prepared(
    lambda: (
        select(_i.death, func.count())
        .where(_i.state == InstanceState.GONE.value, _i.death.is_not(None))
        .group_by(_i.death)
    )
)
#: Of rows that are gone: a count never falls.
_PAST = Prepared(
    lambda: select(_o.provider, _o.result, _o.reason, _o.count, _o.usd).where(
        _o.what == arg("what")
    )
)
_SEEN = Prepared(lambda: select(_s.what, func.count(func.distinct(_s.subject))).group_by(_s.what))
_CLAIMS = Prepared(
    lambda: (
        select(_p.at, _p.build, _p.pool, _p.hit)
        .where(_p.at >= arg("at"), tuple_(_p.at, _p.build) > tuple_(arg("at"), arg("id")))
        .order_by(_p.at, _p.build)
        .limit(arg("limit"))
    )
)


class FinishedBuild(NamedTuple):
    """A build that ended. `start`: how it came by its VM."""

    finished_at: float
    id: str
    phases: tuple[Phase, ...]
    start: str
    provider: str
    usage: BuildUsage


class PoolClaim(NamedTuple):
    """A build that wanted a pool's VM."""

    at: float
    build: str
    pool: str
    hit: bool


class LedgerMetrics:
    def __init__(self, database: Database) -> None:
        self._database = database

    def ended(self) -> list[tuple[str, str, str, int]]:
        """The number of builds that ended, by provider, result and reason."""

        def work(connection: Connection) -> Counter[tuple[str, str, str]]:
            counts = Counter[tuple[str, str, str]]()
            for provider, result, reason, count in _ENDED(connection).all():
                counts[provider, result or "", reason or ""] += count
            for provider, result, reason, count, _ in _PAST(connection, what="build").all():
                counts[provider, result, reason] += count
            return counts

        return [(*key, count) for key, count in sorted(self._database.read(work).items())]

    def unended(self) -> list[tuple[str, str, int]]:
        """The number of builds that have not ended, by provider and state."""
        return [(r[0], r[1], r[2]) for r in self._database.read(lambda c: _UNENDED(c).all())]

    def oldest_queued(self) -> float | None:
        """The time at which the longest waiting build was submitted."""
        found: float | None = self._database.read(lambda c: _OLDEST(c).scalar())
        return found

    def cost(self) -> list[tuple[str, float]]:
        """Return the estimated USD of builds that ended, by provider."""

        def work(connection: Connection) -> dict[str, float]:
            found = {row[0]: row[1] or 0.0 for row in _COST(connection).all()}
            for provider, _, _, _, usd in _PAST(connection, what="build").all():
                found[provider] = found.get(provider, 0.0) + usd
            return found

        return sorted(self._database.read(work).items())

    def finished_after(self, at: float, build: str, limit: int) -> list[FinishedBuild]:
        """Return the builds that ended after that one, in the order of their ends."""
        found = self._database.read(lambda c: _PHASES(c, at=at, id=build, limit=limit).all())
        return [
            FinishedBuild(r[0], r[1], codec.phases(r[2]), r[3] or "", r[4], codec.usage_from(r[5]))
            for r in found
        ]

    def ended_since(
        self, moment: float, own: Mapping[str, str], limit: int
    ) -> list[tuple[float, str, float | None]]:
        """Return when and with which result the builds ended that did so since then, the last ones
        first, and for how many seconds each was queued; those of the principal with this label
        filter."""
        statement = Prepared(lambda: _ended_since(owned(own))) if own else _ENDED_SINCE
        found = self._database.read(lambda c: statement(c, moment=moment, limit=limit).all())
        return [(at, result or "", codec.time_queued(phases)) for at, result, phases in found]

    def deaths(self) -> list[tuple[str, int]]:
        """The number of instances that are gone, by the reason of their death."""

        def work(connection: Connection) -> Counter[str]:
            counts = Counter({row[0]: row[1] for row in _DEATHS(connection).all()})
            for _, _, death, count, _ in _PAST(connection, what="death").all():
                counts[death] += count
            return counts

        return sorted(self._database.read(work).items())

    def sightings(self) -> dict[str, int]:
        """The number of sightings that the reaper remembers, by kind."""
        return {r[0]: r[1] for r in self._database.read(lambda c: _SEEN(c).all())}

    def claims_after(self, at: float, build: str, limit: int) -> list[PoolClaim]:
        """Return the builds that wanted a pool's VM after that one, in order."""
        found = self._database.read(lambda c: _CLAIMS(c, at=at, id=build, limit=limit).all())
        return [PoolClaim(r[0], r[1], r[2], bool(r[3])) for r in found]
