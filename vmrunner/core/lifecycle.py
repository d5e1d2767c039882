"""The order of states, and the meaning of presence and absence. Pure.

Every `now` about an instance is its provider's clock, which is also what its row's times are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from vmrunner.model import (
    NO_USAGE,
    BuildRecord,
    BuildState,
    BuildUsage,
    ContainerEnd,
    Death,
    Instance,
    InstanceState,
    Limits,
    Pool,
    Power,
    Reason,
    Result,
    Seen,
)

_B = BuildState
_I = InstanceState

INSTANCE_NEXT: Final[Mapping[InstanceState, frozenset[InstanceState]]] = {
    _I.REQUESTED: frozenset({_I.BOOTING, _I.DELETING, _I.GONE}),
    _I.BOOTING: frozenset({_I.READY, _I.DELETING, _I.GONE}),
    _I.READY: frozenset({_I.BUSY, _I.PARKING, _I.DELETING, _I.GONE}),
    _I.PARKING: frozenset({_I.PARKED, _I.DELETING, _I.GONE}),
    _I.PARKED: frozenset({_I.WAKING, _I.DELETING, _I.GONE}),
    _I.WAKING: frozenset({_I.READY, _I.DELETING, _I.GONE}),
    _I.BUSY: frozenset({_I.HELD, _I.DELETING, _I.GONE}),
    _I.HELD: frozenset({_I.DELETING, _I.GONE}),
    _I.DELETING: frozenset({_I.GONE}),
    _I.GONE: frozenset(),
}

# A lost attempt goes back to `queued` for its retry: a build's states may repeat, an
# instance's never do.
BUILD_NEXT: Final[Mapping[BuildState, frozenset[BuildState]]] = {
    # From a pool: a VM that is parked, ready, or connected to.
    _B.QUEUED: frozenset({_B.PROVISIONING, _B.BOOTING, _B.CONNECTING, _B.PREPARING, _B.FINISHED}),
    _B.PROVISIONING: frozenset({_B.BOOTING, _B.QUEUED, _B.FINISHED}),
    _B.BOOTING: frozenset({_B.CONNECTING, _B.QUEUED, _B.FINISHED}),
    _B.CONNECTING: frozenset({_B.PREPARING, _B.QUEUED, _B.FINISHED}),
    _B.PREPARING: frozenset({_B.RUNNING, _B.QUEUED, _B.FINISHED}),
    _B.RUNNING: frozenset({_B.COLLECTING, _B.HELD, _B.QUEUED, _B.FINISHED}),
    _B.COLLECTING: frozenset({_B.HELD, _B.QUEUED, _B.FINISHED}),
    _B.HELD: frozenset({_B.FINISHED}),
    _B.FINISHED: frozenset(),
}

#: So long a cancelled build is left to its owner, which ends it gracefully.
CANCEL_GRACE: Final = 120.0


# --- what one look means -------------------------------------------------------------------------


class InstanceSign(StrEnum):
    """The meaning of one look at an instance."""

    NOTHING = "nothing"  # nothing new, or not visible: absence from a look proves nothing
    BORN = "born"  # it exists; its row does not know its reference yet
    REACHABLE = "reachable"  # it is on and has an address: a session may connect
    PARKED = "parked"  # it is off, as we asked
    UNFIT = "unfit"  # it was accepted, and cannot be placed or started
    PREEMPTED = "preempted"  # the cloud took it back
    SELF_ENDED = "self_ended"  # the guest switched itself off
    LOST = "lost"  # it stopped, or it is dead, and nothing of ours asked for that
    DEAD = "dead"  # it was to die, and it is seen dead


#: Signs that a VM ended by itself.
ENDED: Final = (
    InstanceSign.UNFIT,
    InstanceSign.PREEMPTED,
    InstanceSign.SELF_ENDED,
    InstanceSign.LOST,
)
#: Reasons of `Seen.unfit` after which another offer may do.
SCARCE: Final = (Reason.NO_CAPACITY, Reason.QUOTA)


def sign(instance: Instance, seen: Seen | None) -> InstanceSign:
    """The meaning of `seen` for an instance: the first sign that fits, from death to birth."""
    if seen is None:
        return InstanceSign.NOTHING
    if instance.state is _I.DELETING:
        return InstanceSign.DEAD if seen.power is Power.DEAD else InstanceSign.NOTHING
    if seen.preempted:
        return InstanceSign.PREEMPTED
    if seen.unfit is not None and instance.state is _I.BOOTING:
        return InstanceSign.UNFIT
    if instance.state in _PARKS and seen.power is not Power.DEAD:
        return _sign_of_parked(instance, seen)
    if seen.self_ended:
        return InstanceSign.SELF_ENDED
    if seen.power in _OFF:
        return InstanceSign.LOST
    if instance.ref is None:
        return InstanceSign.BORN
    if instance.state is _I.BOOTING and seen.power is Power.RUNNING and seen.address is not None:
        return InstanceSign.REACHABLE
    return InstanceSign.NOTHING


_OFF: Final = (Power.DEAD, Power.STOPPED, Power.STOPPING)
#: States in which a VM that is off is not lost.
_PARKS: Final = (_I.PARKING, _I.PARKED, _I.WAKING)


def _sign_of_parked(instance: Instance, seen: Seen) -> InstanceSign:
    if instance.state is _I.PARKING and seen.power is Power.STOPPED:
        return InstanceSign.PARKED
    running = seen.power is Power.RUNNING and seen.address is not None
    if instance.state is _I.WAKING and running:
        return InstanceSign.REACHABLE
    return InstanceSign.NOTHING


# --- what a series of sweeps means ---------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepId:
    """One sweep of one (scope, kind): its id and when it began, on the provider's clock."""

    id: str
    begun: float


def counts_twice(first: SweepId, second: SweepId, created: float, limits: Limits) -> bool:
    """True if these are the two sightings that let a conclusion stand. Two sweeps with different
    ids, far enough apart, both begun after the newborn window of a thing born (or written) at
    `created`."""
    return (
        first.id != second.id
        and second.begun - first.begun >= limits.sighting_gap
        and first.begun > created + limits.newborn
    )


# --- the early death of an instance --------------------------------------------------------------


def early_death(
    build: BuildRecord | None,
    instance: Instance,
    *,
    now: float,
    submitter: bool | None,
    instance_now: float | None = None,
) -> Death | None:
    """The authorised death of an instance inside its deadline; None: it may live.

    `now` is the clock of the ledger's writers, `instance_now` the instance's own (None: the same),
    by which a hold and a deadline end; `submitter` tells whether the build's submitter lives (None:
    it has none, or that cannot be told)."""
    if build is None or build.finished or build.instance != instance.id:
        return Death.DONE  # nothing will use it again
    if build.state is _B.HELD:
        hold_now = now if instance_now is None else instance_now
        over = build.hold_until is None or hold_now >= build.hold_until
        cancelled = build.cancel is not None
        return Death.DONE if over or cancelled else None
    if sandbox_over(build, (now if instance_now is None else instance_now) - CANCEL_GRACE):
        return Death.DONE  # its owner did not end it
    if submitter is False:
        return Death.ABANDONED
    if build.cancel is not None and now >= (build.cancelled_at or 0.0) + CANCEL_GRACE:
        return Death.CANCELLED
    return None


def sandbox_over(build: BuildRecord, instance_now: float) -> bool:
    """True if a sandbox's time is over, by its VM's clock."""
    return build.was_ready and build.hold_until is not None and instance_now >= build.hold_until


def pool_death(
    row: Instance, pool: Pool | None, *, forgotten: bool, instance_now: float
) -> Death | None:
    """The death of a VM that waits in a pool for a build; None: it may live. It dies once the pool
    is drained, no living `serve` names it (`forgotten`), or no build came. `instance_now` as in
    `early_death`."""
    if pool is None or pool.draining or forgotten:
        return Death.DONE
    late = (
        row.state in (_I.READY, _I.PARKED)
        and instance_now >= row.created_at + pool.spec.idle + POOL_BOOT
    )
    return Death.DONE if late else None


#: Seconds of a pool VM's life beside `idle` and `ttl`: it boots in them.
POOL_BOOT: Final = 300.0
#: A pool is drained when no `serve` that lives has named it for so long, in seconds.
FORGOTTEN: Final = 600.0


# --- how a build ends when its instance does -----------------------------------------------------


#: Exit code of what was killed.
KILLED: Final = 137


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """End of a build, or of one attempt of it. `lost`: it was ours to lose, so that a retry is
    fair; only the engine knows whether there will be one. `container_gone`: the build's container
    ended without its last word, and who ran it may know how."""

    result: Result
    reason: Reason
    exit_code: int | None = None
    message: str = ""
    lost: bool = False
    usage: BuildUsage = NO_USAGE
    container_gone: bool = False

    @property
    def asks_container(self) -> bool:
        """True if how the build's container ended may change this: it went without a word, or a
        step of it was killed, maybe for want of memory."""
        killed = self.reason is Reason.SIGNAL and self.exit_code == KILLED
        return self.container_gone or killed


def end_of(build: BuildRecord, death: Death, message: str = "") -> End:
    """Return the end of a build whose instance must die, or died, under it. `message`: what was
    noted with that death: nothing where a sandbox's time was over, and how it was lost where an
    engine of an older version was about to give it another attempt."""
    if build.cancel is not None:
        return cancelled(build.cancel)
    if death is Death.EXPIRED or (death is Death.DONE and build.was_ready and not message):
        return End(
            result=Result.TIMEOUT,
            reason=Reason.DEADLINE,
            message=message or "the VM's deadline passed",
        )
    if death is Death.CANCELLED:
        return cancelled(Reason.USER)
    if death is Death.ABANDONED:
        return cancelled(Reason.OWNER_GONE)
    if death is Death.STUCK and not build.steps_started:
        return End(
            result=Result.ERROR,
            reason=Reason.BOOT_FAILED,
            message=message or "the VM did not become ready in time",
            lost=True,
        )
    if death is Death.REFUSED:
        return End(
            result=Result.ERROR,
            reason=Reason.NO_CAPACITY,
            message=message or "no offer could be had",
        )
    return End(
        result=Result.ERROR,
        reason=Reason.VM_LOST,
        message=message or "the VM is gone",
        lost=True,
    )


def end_of_container(end: End, seen: ContainerEnd | None) -> End:
    """The end of a build of which its container's end may tell more, by what its provider saw: one
    that is gone without a word, or whose step was killed. What is not known is never the build's
    failure, and never its success."""
    if not end.container_gone and (seen is None or not seen.out_of_memory):
        return end
    code = None if seen is None else seen.exit_code
    usage = end.usage
    if seen is not None and seen.out_of_memory:
        message = seen.message or "the container was killed: its memory was used up"
        return End(
            result=Result.FAILURE, reason=Reason.OUT_OF_MEMORY, exit_code=code, message=message,
            usage=usage,
        )  # fmt: skip
    if seen is not None and (code or seen.signal):
        number = seen.signal or ((code or 0) - 128 if 128 < (code or 0) <= 128 + 64 else None)
        message = f"the container was ended by signal {number}" if number else "the container ended"
        return End(
            result=Result.FAILURE,
            reason=Reason.SIGNAL if number else Reason.EXIT_CODE,
            exit_code=code or 128 + (number or 0),
            message=seen.message or message,
            usage=usage,
        )
    how = "it ended with 0 before its steps had" if code == 0 else "nobody knows how"
    message = f"the container is gone without a word: {how}"
    return End(result=Result.ERROR, reason=Reason.VM_LOST, message=message, lost=True, usage=usage)


def out_of_time(build: BuildRecord) -> End:
    """Return the end of a build that no VM can be asked for any more."""
    return end_of(build, Death.EXPIRED, "no time is left for another attempt")


def is_coming(build: BuildRecord) -> bool:
    """True if the build's VM was not reached yet, so that nothing of the build ran in it."""
    return not build.steps_started and build.state in (_B.PROVISIONING, _B.BOOTING)


def end_of_sign(
    build: BuildRecord,
    seen: InstanceSign,
    *,
    expired: bool,
    message: str = "",
    unfit: Reason | None = None,
) -> End:
    """Return the end of a build whose instance shows one of `ENDED`. `expired`: it ended past its
    deadline, by whichever layer was first. `message`: its provider's words; `unfit`: as in
    `Seen`."""
    words = f": {message}" if message else ""
    if build.cancel is not None:
        return cancelled(build.cancel)
    if expired:
        return end_of(build, Death.EXPIRED)
    if seen is InstanceSign.PREEMPTED:
        text = f"the cloud took the machine back{words}"
        return End(result=Result.ERROR, reason=Reason.PREEMPTED, message=text, lost=True)
    if seen is InstanceSign.SELF_ENDED and build.steps_started:
        # Only the build itself can switch the guest off: it failed, nothing of ours did.
        text = "the VM was switched off from inside while the build's steps ran"
        return End(result=Result.FAILURE, reason=Reason.VM_LOST, message=text)
    if is_coming(build):
        if unfit is not None:
            return End(result=Result.ERROR, reason=unfit, message=message)
        text = f"the VM ended before it was ready{words}"
        return End(result=Result.ERROR, reason=Reason.BOOT_FAILED, message=text, lost=True)
    text = f"the VM is gone{words}"
    return End(result=Result.ERROR, reason=Reason.VM_LOST, message=text, lost=True)


def of_sandbox(build: BuildRecord, end: End) -> End:
    """The same for a sandbox: one that could be used and was killed, or had its time, did well."""
    if build.was_ready and end.reason in (Reason.USER, Reason.DEADLINE):
        message = "" if end.reason is Reason.USER else "its time was over"
        return End(result=Result.SUCCESS, reason=end.reason, message=message, usage=end.usage)
    return end


def cancelled(reason: Reason) -> End:
    """The end of a cancelled build."""
    texts = {
        Reason.USER: "cancelled",
        Reason.OWNER_GONE: "the process that submitted it is gone",
        Reason.BUDGET: "its budget is spent",
    }
    result = Result.TIMEOUT if reason is Reason.DEADLINE else Result.CANCELLED
    return End(result=result, reason=reason, message=texts.get(reason, reason.value))


def may_retry(build: BuildRecord, first_created: float, *, now: float, limits: Limits) -> bool:
    """True if a lost attempt may be followed by another. Only while no step has started, unless the
    submitter said so; and all attempts together stay within the longest life of a VM."""
    if build.steps_started and not build.spec.retry_on_loss:
        return False
    return now + build.spec.ttl <= first_created + limits.max_ttl and build.attempt < ATTEMPTS


def too_late(build: BuildRecord, first_created: float, *, now: float, limits: Limits) -> bool:
    """True if what is left to all attempts together is less than the steps may take."""
    return now + min(build.spec.timeout, limits.max_ttl) > first_created + limits.max_ttl


#: A build that lost three VMs is not retried.
ATTEMPTS: Final = 3
