"""The reasons why queued builds wait: one answer for `ps`, `show`, JSON and the API."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmrunner.core.scheduling import OffersAnswer, line, plan
from vmrunner.model import SERVING, BuildRecord, BuildState, Offer, Scope
from vmrunner.runtime import background

if TYPE_CHECKING:
    from vmrunner.engine.context import EngineLimits
    from vmrunner.ledger import Ledger
    from vmrunner.model import Principal

LOOKED_AT: Final = 1000  # builds, the oldest of the highest priority
QUEUE_KEPT: Final = 1.0  # seconds that a look is kept at most
PAUSES: Final = 20  # times what a look took it is kept
CHEAP: Final = 0.01  # seconds of the processor: a look that took no more is not kept
#: No cloud is asked here: a provider with room counts as one that could start.
_ANY: Final = OffersAnswer(offers=(Offer(scope=Scope("", "", ""), machine_type="", place=""),))


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueView:
    """The queue at a moment. `builds`: those that are looked at, by id; `line`: in the order in
    which they start; `reasons`: why each waits, "" where it could start, `full`: for want of a
    place; `served`: providers that an engine serves."""

    builds: Mapping[str, BuildRecord]
    line: Sequence[BuildRecord]
    reasons: Mapping[str, str]
    full: frozenset[str]
    served: Collection[str]
    paused: bool


class KeptQueue:
    """The queue as it was a moment ago, for those who ask again and again. What took little is
    looked at each time; what took much, beside thousands of VMs, at most every 20 times as long, a
    second at most. Safe in threads: one looks at a time. Meanwhile the others get what is there, if
    that lapsed a second ago at most, and else wait."""

    def __init__(
        self,
        cost: Callable[[], float] = time.thread_time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`cost`: seconds of the processor that this thread took so far."""
        self._cost, self._now = cost, now
        self._looking = threading.Lock()
        #: A look, and until when it is as good as a new one.
        self._kept: tuple[QueueView, float] | None = None

    def get(self, look: Callable[[], QueueView]) -> tuple[QueueView, bool]:
        """The queue, and True if that is how it is now."""
        kept, now = self._kept, self._now()
        if kept is None or now >= kept[1] + QUEUE_KEPT:
            self._looking.acquire()
        elif now < kept[1] or not self._looking.acquire(blocking=False):
            return kept[0], False
        try:
            kept = self._kept  # another may have looked meanwhile
            if kept is not None and self._now() < kept[1]:
                return kept[0], False
            return self._looked(look), True
        finally:
            self._looking.release()

    def _looked(self, look: Callable[[], QueueView]) -> QueueView:
        before = self._cost()
        found = look()
        spent = self._cost() - before
        lasts_until = self._now() + min(QUEUE_KEPT, PAUSES * spent)
        self._kept = (found, lasts_until) if spent > CHEAP else None
        return found


def waiting(
    ledger: Ledger,
    limits: EngineLimits,
    rows: Iterable[BuildRecord],
    principal: Principal | None = None,
    kept: KeptQueue | None = None,
) -> dict[str, str]:
    """Reasons why those of them that are queued wait, by build id. `principal`: the reader, if not
    for one who sees all; one with a label filter is told nothing of other tenants' builds. `kept`:
    of who asks again and again."""
    wanted = [row.id for row in rows if row.state is BuildState.QUEUED]
    if not wanted:
        return {}
    tenant = principal if principal is not None and principal.labels else None
    queue, is_new = (kept or KeptQueue()).get(lambda: _look(ledger, limits))
    whole = len(queue.builds) < LOOKED_AT
    positions = _places(queue.line, tenant, whole=whole)
    found = {}
    for name in wanted:
        if name in queue.builds:
            found[name] = _why(ledger, queue, name, tenant) + positions.get(name, "")
        elif not whole:
            many = f"{LOOKED_AT} builds or more stand before it in line"
            found[name] = many if tenant is None else "it waits for its turn"
        elif not is_new:
            found[name] = "it was queued a moment ago"
    return found


def _look(ledger: Ledger, limits: EngineLimits) -> QueueView:
    queued = ledger.builds.queued(LOOKED_AT)
    driven = {build.id: build for build in ledger.builds.driven()}
    vms = [row for row in ledger.instances.open() if row.role in SERVING]
    running = [(driven.get(row.build or ""), row) for row in vms]
    paused = ledger.paused
    decided = plan(
        time.time(), queued, running, lambda _name, _spec: _ANY, limits.rooms, draining=paused
    )
    awaited = {build.spec.provider for build in queued}
    rejected = {reject.build.id: reject.message for reject in decided.rejects}
    return QueueView(
        builds={build.id: build for build in queued},
        line=line(queued, running),
        reasons={**decided.waiting, **rejected},
        full=decided.full,
        served=[name for name in awaited if background.served(ledger, [name], here=True)],
        paused=paused,
    )


def _why(ledger: Ledger, queue: QueueView, name: str, tenant: Principal | None) -> str:
    """The reason for a build that is looked at."""
    provider = queue.builds[name].spec.provider
    if provider not in queue.served and not queue.paused:
        return f"no engine serves {provider} (start one: vmrunner serve)"
    if (
        tenant is not None and name in queue.full
    ):  # the limit's own words say how many VMs there are
        return "all places for VMs are taken"
    return queue.reasons.get(name) or _refused(ledger, name) or "an engine takes it next"


def _places(
    ordered: Sequence[BuildRecord], tenant: Principal | None, *, whole: bool
) -> dict[str, str]:
    """Say which place in line each has: a tenant's among its own. `whole`: these are all."""
    shown = [b for b in ordered if tenant is None or tenant.sees(b)]
    if len(shown) < 2:
        return {}
    whose = " of yours" if tenant is not None else ""
    count = f" of {len(shown)}" if whole else ""
    return {b.id: f"; number {n}{count}{whose} in line" for n, b in enumerate(shown, 1)}


def _refused(ledger: Ledger, build: str) -> str:
    """The provider's last refusal of a VM, in words, or ""."""
    refused = [e for e in ledger.events.list(build) if e.kind in ("refused", "retry")]
    message = refused[-1].data.get("message") if refused else None
    return f"no VM yet: {message}" if message else ""
