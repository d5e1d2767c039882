"""The end of builds: finish, hold or queue again; and then their VM must die.

A verdict, or another try, and the mark on its VM that it must die are one transaction, so that no
crash loses an exit code or forgets a VM, and no build has a VM that was given up. Of a lost attempt
the VM is dying before the next one may be asked for (promise 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from vmrunner.core import requirements
from vmrunner.core.lifecycle import End, end_of, may_retry, of_sandbox, out_of_time, too_late
from vmrunner.core.scheduling import PlannedStart, Refusal
from vmrunner.engine import lifecycle_log
from vmrunner.engine.context import WorkContext
from vmrunner.ledger import BuildEnd, DeathMark
from vmrunner.lib.backoff import backoff
from vmrunner.model import (
    BuildRecord,
    BuildState,
    Death,
    EventKind,
    Instance,
    InstanceState,
    Market,
    Offer,
    Reason,
    Result,
    Scope,
    Spec,
)
from vmrunner.store.build_artifacts import directory_of

#: After a refusal, so long until a build is tried again: doubled with each that follows.
REFUSED_WAIT: Final = 15.0
LONGEST_REFUSED_WAIT: Final = 180.0
#: What was not tried again for so long is not ours any more.
WAIT_FORGOTTEN: Final = 3600.0

_WISHED: Final = (Reason.USER, Reason.OWNER_GONE, Reason.BUDGET, Reason.DEADLINE)


class _Refused(NamedTuple):
    """A build that waits for a VM: it was refused one so often in a row, of this machine."""

    refused: int
    provider: str
    machine: Spec


class _Unfit(NamedTuple):
    """An offer that was taken and could not be placed: why, and when (monotonic)."""

    message: str
    at: float


_Place = tuple[Scope, str, str, Market]


def _place(offer: Offer) -> _Place:
    """All of an offer but its price and image, which may change from one question to the next."""
    return offer.scope, offer.machine_type, offer.place, offer.market


class BuildCompletion:
    """The ends of one engine's builds. Each call may raise Fenced: another owns the build then."""

    def __init__(self, context: WorkContext) -> None:
        self._context = context
        self.refusals: dict[str, Refusal] = {}  # by build, at its last try; monotonic
        self._waits: dict[str, _Refused] = {}
        self._unfit: dict[str, dict[_Place, _Unfit]] = {}  # by build
        self._waits_for = context.providers, context.limits

    def verdict(self, build: BuildRecord, row: Instance, end: End) -> Instance | None:
        """A session's last word, about a VM that is not dying. Returns its row as it is then."""
        if end.lost and self._may_retry(build):
            return self._retry(build, row, Death.DONE, end)
        if self._keeps(build, row, end):
            self._hold(build, row, end)
            return None
        return self.finish(build, end, row=row)

    def ends(self, build: BuildRecord, row: Instance, end: End) -> bool:
        """True if this last word of a session ends its build, whatever the ledger has."""
        return not (end.lost or self._keeps(build, row, end))

    def finish_all(
        self, ends: Sequence[tuple[BuildRecord, Instance, End]]
    ) -> list[Instance | Exception | None]:
        """Write the ends of builds by their sessions in one commit. For each its VM's row as it is
        then, or the error of the write."""
        written = self._context.ledger.builds.finish_all(
            {build.id: self._end(build, end, row, Death.DONE) for build, row, end in ends}
        )
        for (build, _, _), outcome in zip(ends, written, strict=True):
            if not isinstance(outcome, Exception):
                self._forget(build)
                lifecycle_log.ended(outcome[0])
        return [outcome if isinstance(outcome, Exception) else outcome[1] for outcome in written]

    def unwoken(self, build: BuildRecord, row: Instance, message: str) -> Instance | None:
        """The provider does not wake the VM that was parked for a build: that waits for another,
        and this was no attempt. Returns the VM's row as it is then."""
        end = End(result=Result.ERROR, reason=Reason.NO_CAPACITY, message=message, lost=True)
        return self._retry(build, row, Death.REFUSED, end, counted=False)

    def unfit(self, build: BuildRecord, row: Instance, message: str) -> Instance | None:
        """The provider cannot place what it accepted: that ends, the next offer is tried, and this
        was no attempt. Returns the VM's row as it is then."""
        unfit = _Unfit(message, self._context.monotonic())
        self._unfit.setdefault(build.id, {})[_place(row.offer)] = unfit
        end = End(result=Result.ERROR, reason=Reason.NO_CAPACITY, message=message, lost=True)
        return self._retry(build, row, Death.REFUSED, end, counted=False)

    def fitting(self, starts: Sequence[PlannedStart]) -> list[PlannedStart]:
        """The launches, without the offers that could not be placed. A build of which none is left
        ends, or waits, as when all are refused."""
        found = []
        for start in starts:
            unfit = self._unfit.get(start.build.id, {})
            offers = tuple(offer for offer in start.offers if _place(offer) not in unfit)
            if offers:
                found.append(replace(start, offers=offers))
                continue
            self._unfit.pop(start.build.id)
            message = unfit[_place(start.offers[-1])].message
            end = End(result=Result.ERROR, reason=Reason.NO_CAPACITY, message=message)
            if start.build.spec.queue_timeout is None:
                self.finish(start.build, end)
            else:
                self._wait(start.build, end)
        return found

    def dead(self, build: BuildRecord, row: Instance) -> None:
        """End a build whose VM is dying or gone, and that has no verdict yet, or was held."""
        death = row.death or Death.VANISHED
        if build.state is BuildState.HELD:
            self.finish(build, end_of(build, death))
        elif death is Death.REFUSED:
            # Asked for in doubt, or by an engine that died: the other offers were not tried.
            end = end_of(build, death, row.message)
            if build.spec.queue_timeout is None and self._may_retry(build):
                self._requeue(build, end)
            else:
                self.refused(build, end)
        else:
            end = end_of(build, death, row.message)
            if end.lost and self._may_retry(build):
                self._requeue(build, end)
            else:
                self.finish(build, end)

    def refused(self, build: BuildRecord, end: End) -> None:
        """No offer could be had: wait in the queue, if the build has a queue timeout and is not
        cancelled."""
        if build.cancel is not None or build.spec.queue_timeout is None:
            self.finish(build, end)
            return
        context = self._context
        provider_now = self._now(build)
        queued = context.ledger.builds.put_back(
            build.id,
            epoch=build.epoch,
            now=provider_now,
            before=provider_now - context.limits.limits.newborn,
        )
        self._wait(queued, end)

    def given(self, build: BuildRecord) -> None:
        """A build got a VM: those that wait for such a machine try again soon."""
        self._waits.pop(build.id, None)
        machine, now = requirements.machine(build.spec), self._context.monotonic()
        for name, wait in list(self._waits.items()):
            if (wait.provider, wait.machine) == (build.spec.provider, machine):
                self._hurry(name, now + REFUSED_WAIT)

    def renew(self) -> None:
        """Forget the waits where the configuration changed, and those of builds that others took
        or that ended elsewhere."""
        context, now = self._context, self._context.monotonic()
        if self._waits_for != (context.providers, context.limits):
            self._waits_for = context.providers, context.limits
            for name in list(self._waits):
                self._hurry(name, now)
        for name, refusal in list(self.refusals.items()):
            if now > refusal.until + WAIT_FORGOTTEN:
                del self.refusals[name]
                self._waits.pop(name, None)
        for name, unfit in list(self._unfit.items()):
            if now > max(place.at for place in unfit.values()) + WAIT_FORGOTTEN:
                del self._unfit[name]

    def _hurry(self, build: str, until: float) -> None:
        self._waits[build] = self._waits[build]._replace(refused=0)
        refusal = self.refusals.get(build)
        if refusal is not None:
            self.refusals[build] = replace(refusal, until=min(refusal.until, until))

    def pauses(self) -> dict[str, Refusal]:
        """The refusals by build, with the ends of their pauses as this host's clock has them now:
        setting the clock makes none longer."""
        ahead = self._context.clock() - self._context.monotonic()
        return {
            name: replace(refusal, until=refusal.until + ahead)
            for name, refusal in self.refusals.items()
        }

    def end_late(self, build: BuildRecord) -> bool:
        """End a build that waited so long for its next attempt that no time is left for it. True if
        that was so. Its provider's name may be gone, as after a renaming: then an engine that has
        its last VM's scope, and so the clock of its times, ends it."""
        if not build.attempt or not self._has_clock(build):
            return False
        if not too_late(build, **self._times(build)):
            return False
        self.finish(build, out_of_time(build))
        return True

    def finish(
        self,
        build: BuildRecord,
        end: End,
        *,
        row: Instance | None = None,
    ) -> Instance | None:
        """End the build. With `row`, by its session: its VM is done in the same transaction, and
        its row as it is then is returned."""
        how = self._end(build, end, row, None if row is None else Death.DONE)
        done, dying = self._context.ledger.builds.finish(build.id, **how)
        self._forget(build)
        lifecycle_log.ended(done)
        return dying

    # --- within ---

    def _wait(self, build: BuildRecord, end: End) -> None:
        """Pause the tries of a build that is in the queue."""
        now, former = self._context.monotonic(), self._waits.get(build.id)
        refused = 1 if former is None else former.refused + 1
        self._queued(build, end, refused=refused)
        until = now + backoff(REFUSED_WAIT, refused - 1, LONGEST_REFUSED_WAIT)
        self.refusals[build.id] = Refusal(until, quota=end.reason is Reason.QUOTA)
        machine = requirements.machine(build.spec)
        self._waits[build.id] = _Refused(refused, build.spec.provider, machine)

    def _end(
        self, build: BuildRecord, end: End, row: Instance | None, death: Death | None = None
    ) -> BuildEnd:
        end = of_sandbox(build, end)
        return BuildEnd(
            epoch=build.epoch,
            result=end.result,
            reason=end.reason,
            exit_code=end.exit_code,
            message=end.message,
            usage=end.usage,
            now=self._now(build) if row is None else self._context.now(row),
            collected=None if row is None else self._collected(build),
            death=death,
        )

    def _hold(self, build: BuildRecord, row: Instance, end: End) -> None:
        held = self._end(build, end, row)
        hold_until = min(held["now"] + (build.spec.keep_on_failure or 0.0), row.end)
        self._context.ledger.builds.hold(build.id, hold_until=hold_until, **held)

    def _collected(self, build: BuildRecord) -> int | None:
        """The epoch at which its artifacts were brought, by the session that ends it: ours."""
        directory = directory_of(self._context.paths.artifacts, build.id, build.epoch)
        return build.epoch if directory.is_dir() else None

    def _keeps(self, build: BuildRecord, row: Instance, end: End) -> bool:
        """True if the VM is kept for a look inside. Only after a failure of the build's own, on a
        VM that works, and never against a cancel."""
        return (
            bool(build.spec.keep_on_failure)
            and end.result in (Result.FAILURE, Result.TIMEOUT)
            and end.reason not in _WISHED
            and not end.lost
            and build.cancel is None
            and build.state in (BuildState.RUNNING, BuildState.COLLECTING)
            and row.state is InstanceState.BUSY
        )

    def _requeue(self, build: BuildRecord, end: End) -> None:
        builds, now = self._context.ledger.builds, self._now(build)
        self._queued(builds.requeue(build.id, epoch=build.epoch, now=now), end)

    def _retry(
        self, build: BuildRecord, row: Instance, death: Death, end: End, *, counted: bool = True
    ) -> Instance | None:
        """The same of a build whose VM is to die now."""
        queued, dying = self._context.ledger.builds.retry(
            build.id,
            DeathMark(death, row.id, end.message),
            epoch=build.epoch,
            now=self._context.now(row),
            counted=counted,
        )
        self._queued(queued, end)
        return dying

    def _forget(self, build: BuildRecord) -> None:
        self.refusals.pop(build.id, None)
        self._waits.pop(build.id, None)
        self._unfit.pop(build.id, None)

    def _queued(self, build: BuildRecord, end: End, **more: int) -> None:
        context = self._context
        self.refusals.pop(build.id, None)
        context.ledger.events.add(
            build.id,
            EventKind.RETRY,
            context.clock(),
            reason=end.reason.value,
            message=end.message[:300],
            **more,
        )
        if build.cancel is None:
            context.wake()

    def _may_retry(self, build: BuildRecord) -> bool:
        if build.cancel is not None:
            return False
        return may_retry(build, **self._times(build))

    def _times(self, build: BuildRecord) -> dict[str, Any]:
        first, now = self._context.ledger.instances.first_birth(build.id), self._now(build)
        limits = self._context.limits.limits
        return {"first_created": now if first is None else first, "now": now, "limits": limits}

    def _now(self, build: BuildRecord) -> float:
        """The clock of its VM, which may die with it; before the first, that of its provider."""
        latest = self._latest(build)
        if latest is not None:
            return self._context.now(latest)
        provider = self._context.providers.get(build.spec.provider)
        return provider.now() if provider else self._context.clock()

    def _has_clock(self, build: BuildRecord) -> bool:
        """True if `_now` is not just this host's clock, which may be wrong."""
        if build.spec.provider in self._context.providers:
            return True
        latest = self._latest(build)
        return latest is not None and self._context.provider_of(latest) is not None

    def _latest(self, build: BuildRecord) -> Instance | None:
        """The row of its last VM; None before the first."""
        rows = self._context.ledger.instances.list(build=build.id, limit=1)
        return rows[0] if rows else None
