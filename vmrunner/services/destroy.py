"""The end of one VM now, and of its build."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmrunner.engine import lifecycle_log
from vmrunner.errors import Conflict, VmrunnerError
from vmrunner.lib import process
from vmrunner.model import DYING, Death, InstanceState
from vmrunner.providers.deletion import delete_until_dead
from vmrunner.services.cancel import cancel

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.model import Instance
    from vmrunner.runtime.provider_set import ProviderSet

SEEN_DEAD: Final = 30.0  # seconds to wait for it
TWO_BEATS: Final = 11.0  # seconds in which an engine that lives beats
_ROUND: Final = 0.1  # seconds between two looks


class DestroyResult(enum.StrEnum):
    """Fate of a VM."""

    GONE = "gone"  # it is seen dead
    GONE_BEFORE = "gone_before"
    ASKED = "asked"  # it was asked to die, and is not seen dead yet; that goes on
    REFUSED = "refused"  # the provider would not


@dataclass(frozen=True, slots=True)
class DestroyedVm:
    """The answer for one VM; `error` says why the provider refused."""

    result: DestroyResult
    error: str = ""


def past_deadline(ledger: Ledger, providers: ProviderSet) -> list[Instance]:
    """The open rows that are past their deadline, each by the clock of its provider."""

    def past(row: Instance) -> bool:
        return providers.time_at(row.provider, row.scope, ask=True) > row.end

    return [row for row in ledger.instances.open() if past(row)]


def destroy(ledger: Ledger, providers: ProviderSet, row: Instance, *, by: str = "") -> DestroyedVm:
    """Mark the row first, so that no caller uses the VM any more; then delete it until it is dead,
    for at most `SEEN_DEAD`. Its build is cancelled; `by`: for whom, else this process's user.
    Raises Conflict for a VM that this provider cannot reach."""
    by = by or process.user()
    done = _destroyed(ledger, providers, row, by)
    ledger.actions.add(by, "destroy", row.id, time.time(), done.result.value)
    return done


def give_up(
    ledger: Ledger,
    providers: ProviderSet,
    row: Instance,
    *,
    by: str = "",
    sleep: Callable[[float], None] = time.sleep,
) -> DestroyedVm:
    """Close the row of a VM of which the user says that it is gone with its host, or its account,
    which cannot be looked at any more. Its build ends as that of any VM that is gone, or gets
    another VM. Raises Conflict for a VM that can be reached from here, or whose owner lives."""
    by = by or process.user()
    if row.state is InstanceState.GONE:
        return DestroyedVm(DestroyResult.GONE_BEFORE)
    if _reachable(providers, row):
        raise Conflict(
            f"{row.id} is in {row.scope}, which is within reach from here",
            hint="vmrunner vm destroy without --gone: it is seen dead then",
        )
    if _lives(ledger, row.owner, sleep):
        raise Conflict(
            f"{row.id} is minded by {row.owner}, which lives: its heartbeat goes on",
            hint="destroy it there",
        )
    text = f"{by} says that it is gone"
    death = row.death or Death.VANISHED
    if not ledger.instances.close(
        row.id, epoch=row.epoch, death=death, now=time.time(), message=text
    ):
        return give_up(ledger, providers, ledger.instances.get(row.id), by=by, sleep=sleep)
    lifecycle_log.gone(row, death)
    ledger.actions.add(by, "give up", row.id, time.time(), DestroyResult.GONE.value)
    return DestroyedVm(DestroyResult.GONE)


def _reachable(providers: ProviderSet, row: Instance) -> bool:
    try:
        return row.scope in providers.reaching(row.provider, row.scope).scopes
    except VmrunnerError:  # its provider is in the configuration no more
        return False


def _lives(ledger: Ledger, owner: str | None, sleep: Callable[[float], None]) -> bool:
    """True if a VM's owner beats: looked at twice, since no clock but its own tells when."""

    def beat() -> float | None:
        return {m.id: m.seen_at for m in ledger.engines.list()}.get(owner or "")

    before = beat()
    if before is None:
        return False
    sleep(TWO_BEATS)
    return beat() not in (None, before)


def _destroyed(ledger: Ledger, providers: ProviderSet, row: Instance, by: str) -> DestroyedVm:
    if row.state is InstanceState.GONE:  # its provider may be gone from the configuration too
        _cancel(ledger, row, by)
        return DestroyedVm(DestroyResult.GONE_BEFORE)
    provider = providers.reaching(row.provider, row.scope)
    if row.scope not in provider.scopes:
        raise Conflict(
            f"{row.id} is in {row.scope}, which is no scope of {row.provider} now",
            hint="use the account, host or region that it was started with; is that gone for "
            "good: vmrunner vm destroy --gone",
        )
    _cancel(ledger, row, by)
    row = _marked(ledger, providers, row)

    def closed() -> bool:
        return ledger.instances.get(row.id).state is InstanceState.GONE

    deletes = delete_until_dead(
        provider, {row.key: row.ref}, seconds=SEEN_DEAD, pause=_ROUND, force=True, closed=closed
    )
    if deletes.refused:
        return DestroyedVm(DestroyResult.REFUSED, deletes.refused)
    if deletes.dead:
        row = ledger.instances.get(row.id)  # an owner may have changed it
        death = row.death or Death.CANCELLED
        if ledger.instances.close(row.id, epoch=row.epoch, death=death, now=provider.now()):
            lifecycle_log.gone(row, death)
    return DestroyedVm(DestroyResult.GONE if closed() else DestroyResult.ASKED)


def _cancel(ledger: Ledger, row: Instance, by: str) -> None:
    if row.build is not None:
        cancel(ledger, row.build, by=by)


def _marked(ledger: Ledger, providers: ProviderSet, row: Instance) -> Instance:
    """The row in `deleting`; another engine may move it meanwhile, so by compare-and-set."""
    instances = ledger.instances
    while row.state not in DYING:
        now = providers.time_at(row.provider, row.scope, ask=True)
        instances.mark_deleting(row.id, seen_epoch=row.epoch, death=Death.CANCELLED, now=now)
        row = instances.get(row.id)
    return row
