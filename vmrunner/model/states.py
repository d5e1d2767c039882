"""States of builds and instances, and the reasons for their end."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class BuildState(StrEnum):
    """State of a build, in order. Not every build goes through all of them."""

    QUEUED = "queued"
    PROVISIONING = "provisioning"
    BOOTING = "booting"
    CONNECTING = "connecting"
    PREPARING = "preparing"
    RUNNING = "running"
    COLLECTING = "collecting"
    HELD = "held"
    FINISHED = "finished"


class Result(StrEnum):
    """Result of a build."""

    SUCCESS = "success"
    FAILURE = "failure"  # of its own steps
    ERROR = "error"  # of vmrunner or the cloud, never of the steps
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


class Reason(StrEnum):
    """Reason for a build's end, more exact than its result. Stable words, for scripts."""

    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_FULL = "disk_full"
    STEP_TIMEOUT = "step_timeout"
    BUILD_TIMEOUT = "build_timeout"
    DEADLINE = "deadline"
    USER = "user"
    OWNER_GONE = "owner_gone"
    QUEUE_TIMEOUT = "queue_timeout"
    NO_CAPACITY = "no_capacity"
    QUOTA = "quota"
    CREDENTIALS = "credentials"
    IMAGE = "image"
    BOOT_FAILED = "boot_failed"
    VM_LOST = "vm_lost"
    PREEMPTED = "preempted"
    CONNECTION_LOST = "connection_lost"
    BUDGET = "budget"
    INTERNAL = "internal"


class EventKind(StrEnum):
    """Kind of a build's event, as stored. A ledger may hold kinds of another version."""

    PHASE = "phase"
    TRACE = "trace"  # the submitter's span
    CANCEL = "cancel"  # its end was asked for
    EXTEND = "extend"  # … that its VM be held for longer
    RETRY = "retry"
    REFUSED = "refused"  # an offer, by the provider
    BUDGET = "budget"  # it is overdrawn, and only warns
    DOOM = "doom"  # its VM must die
    TAKE_OVER = "take_over"  # another engine drives it
    TROUBLE = "trouble"  # something went wrong with it in an engine
    CONNECTION_LOST = "connection_lost"
    RECONNECTED = "reconnected"
    STALE_EPOCH = "stale_epoch"  # the VM says that it is another's
    SECRETS_TOO_SHORT = "secrets_too_short_to_mask"
    BOOTSTRAPPED = "bootstrapped"
    SOURCE = "source"  # so much of it is in the VM
    PULLING = "pulling"  # the container's image
    CONTAINER = "container"  # it is there
    PINNED = "pinned"  # the container's tag, to the digest that later attempts run
    STEP_STARTED = "step_started"
    STEP_ENDED = "step_ended"
    LOG_FULL = "log_full"
    COLLECTING = "collecting"  # so many bytes of artifacts have come
    ARTIFACTS = "artifacts"  # so many were brought
    ARTIFACT_MISSING = "artifact_missing"
    ARTIFACT_OMITTED = "artifact_omitted"
    CACHE = "cache"  # what became of one
    ENTERED = "entered"  # its VM, by a terminal or a port


class InstanceState(StrEnum):
    """State of an instance. It never goes back. None is called "failed": `Death` has the reason."""

    REQUESTED = "requested"  # the row is written; the provider has not answered
    BOOTING = "booting"  # accepted; we hold its reference
    READY = "ready"  # SSH answered with the host key that we planted
    PARKING = "parking"  # of a pool: it is being stopped, to wait for its build
    PARKED = "parked"  # … it is stopped
    WAKING = "waking"  # … its build came, and it is being started
    BUSY = "busy"  # the build's steps run
    HELD = "held"  # kept for debugging
    DELETING = "deleting"  # it must die, and it is not yet seen dead
    GONE = "gone"  # seen dead


#: States of a VM that must die, or is dead.
DYING: Final = (InstanceState.DELETING, InstanceState.GONE)


class Start(StrEnum):
    """Origin of a build's VM."""

    COLD = "cold"  # it was made and booted for the build
    RESUMED = "resumed"  # … from the frozen state of a settled one
    HOT = "hot"  # it ran already, in a pool
    PARKED = "parked"  # it was stopped, in a pool


class Death(StrEnum):
    """Reason why an instance or resource must end, in the reaper's order of priority."""

    EXPIRED = "expired"
    LEFTOVER = "leftover"
    DUPLICATE = "duplicate"
    CANCELLED = "cancelled"
    STUCK = "stuck"
    ABANDONED = "abandoned"
    ORPHAN = "orphan"
    VANISHED = "vanished"
    DONE = "done"  # its build ended: the owner deletes it
    REFUSED = "refused"  # the provider never made it
