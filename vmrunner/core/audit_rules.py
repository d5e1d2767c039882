"""The independent check: the cloud against the ledger. Pure, and it shares no rule with the reaper:
it is written from the promises, so that a mistake there is found here.

A survivor, the reason for exit code 7, is anything of ours that is alive past `E + G`, that no row
knows, that carries our marks without being whole, or that a row says is there and is not; and a
reaper that has been silent for too long, since nothing else sees to the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from vmrunner.model import (
    TAG,
    Instance,
    InstanceState,
    Kind,
    Limits,
    Page,
    Power,
    Ref,
    Resource,
    Role,
    Scope,
)

#: Seconds after which a reaper that should be at work is called silent.
PASS_SILENCE: Final = 300.0
SWEEP_SILENCE: Final = 900.0
#: Seconds that clocks may be apart.
CLOCKS_APART: Final = 5.0
#: Seconds past E in which whatever outside vmrunner ends a VM must have done so (design's 15 min).
STOPPING: Final = 900.0


class AuditFault(StrEnum):
    """A fault that the audit finds."""

    PAST_DEADLINE = "past_deadline"  # alive past E + G
    UNKNOWN = "unknown"  # ours by tag, and no row knows it
    CLOSED = "closed"  # its row says that it is gone
    DOUBLE = "double"  # another VM than the one that its row records
    BADLY_TAGGED = "badly_tagged"  # ours by one tag, without the others that it must have
    UNTAGGED = "untagged"  # of our image or in our network, and without our tags
    NOT_THERE = "not_there"  # recorded, and not to be seen
    ROW_PAST_DEADLINE = "row_past_deadline"  # an open row past E + G, wherever its VM is
    UNREAD = "unread"  # a part of the cloud could not be read: nothing is known about it
    REAPER_SILENT = "reaper_silent"  # no reaper has finished a pass for too long
    CLOCKS_APART = "clocks_apart"  # a node's clock is not the others'


@dataclass(frozen=True, kw_only=True, slots=True)
class Survivor:
    """One line of the audit. `late` is seconds past the deadline, where there is one."""

    fault: AuditFault
    instance: str | None
    ref: Ref | None
    late: float | None
    message: str


def audit(
    now: float,
    rows: Iterable[Instance],
    pages: Iterable[Page],
    limits: Limits,
    installation: str,
    *,
    builders: Collection[str] = (),
) -> list[Survivor]:
    """The faults at one provider; empty where there are none.

    `rows`: the open rows within the provider's scopes, and the row of every instance id that the
    pages show; `builders`: the instance ids of images' builders whose rows are open. `now` is the
    provider's clock. Rows and machines inside the newborn window do not count.
    """
    rows_by_id = {row.id: row for row in rows}
    recorded = {
        row.ref: row
        for row in rows_by_id.values()
        if row.ref and row.state is not InstanceState.GONE
    }
    listed = list(pages)
    found: list[Survivor] = []
    for page in listed:
        if page.error is not None:
            text = f"{page.scope} {page.kind.value}: {page.error}"
            found.append(_line(AuditFault.UNREAD, text))
        for resource in page.resources:
            if resource.power is Power.DEAD:
                continue
            if resource.tag("installation") == installation:
                row = rows_by_id.get(resource.instance or "") or recorded.get(resource.ref)
                found += _thing(now, resource, row, limits, builders)
            elif (
                resource.near
                and not resource.tag("installation")
                and not _new(resource, now, limits)
                and (resource.created_at or 0.0) + resource.near_after < now
            ):
                text = f"{resource.ref.id} has no tags of ours, and is in {resource.near}"
                found.append(_line(AuditFault.UNTAGGED, text, resource))
    found += _twins(now, listed, rows_by_id, limits, installation)
    return sorted(found + _rows(now, rows_by_id.values(), listed, limits, installation), key=str)


def idle(pages: Iterable[Page], used: Collection[Scope]) -> dict[Scope, str]:
    """Scopes of which nothing at all could be read, and why, where nothing of ours can be: a region
    that is switched off says nothing for ever. `used`: those in which something of ours is, or was
    within the longest life. Where no scope could be read, none is idle: that is blindness."""
    pages = list(pages)
    read = {page.scope for page in pages if page.error is None}
    dead = {page.scope: page.error or "" for page in pages if page.scope not in {*read, *used}}
    return dead if read else {}


def by_tags(now: float, pages: Iterable[Page], limits: Limits, installation: str) -> list[Survivor]:
    """The faults that need no ledger: what is alive past its own deadline, and what could not be
    read."""
    faults = (AuditFault.PAST_DEADLINE, AuditFault.UNREAD)
    return [line for line in audit(now, (), pages, limits, installation) if line.fault in faults]


def unread(provider: str, why: str) -> Survivor:
    """A provider of which nothing can be said."""
    return _line(AuditFault.UNREAD, f"{provider}: {why}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReaperActivity:
    """Activity of those who reap, as far as it is known, all in epoch seconds of the clock that
    nodes share; None: nothing is."""

    passed: float | None = None  # when a reaper last finished a pass over the ledger
    swept: float | None = None  # … and over all that the clouds show
    seen: float | None = None  # when any engine last said that it lives
    serving: float | None = None  # since when a daemon serves that is alive now
    scopes: Mapping[str, float] = field(default_factory=dict)  # by scope: when it was last swept
    #: By who lives, for people: by how many seconds its clock is ahead of the one that is shared.
    ahead: Mapping[str, float] = field(default_factory=dict)


def silence(now: float, rows: Iterable[Instance], watch: ReaperActivity) -> list[Survivor]:
    """Return the faults of a reaper that is silent. Where a daemon serves, it must pass and sweep.
    Where none does, some node must have lived lately for as long as rows are open: with nothing
    alive, and nothing expected, silence is as it should be."""
    texts = []
    open_rows = [row for row in rows if row.state is not InstanceState.GONE]
    if watch.serving is not None:
        begun = min(watch.serving, now)

        def silent_for(last: float | None, limit: float) -> float:
            """Seconds of silence, 0 for less than the limit. A time to come is none: the clock was
            set back, and nothing is known of since then."""
            silent = abs(now - max(last or 0.0, begun))
            return silent if silent > limit else 0.0

        passes = silent_for(watch.passed, PASS_SILENCE)
        sweeps = silent_for(watch.swept, SWEEP_SILENCE)
        for what, silent in (("a pass", passes), ("a sweep", sweeps)):
            if silent:
                texts.append(f"an engine serves, and has not finished {what} for {int(silent)} s")
        for scope in sorted({str(row.scope) for row in open_rows}) if not sweeps else ():
            silent = silent_for(watch.scopes.get(scope), SWEEP_SILENCE)
            if silent:
                texts.append(
                    f"VMs are open in {scope}, which nobody could list for {int(silent)} s"
                )
    else:
        # A node wrote the youngest row; heartbeats tell which nodes lived after that.
        signs = [watch.passed, watch.swept, watch.seen, *(row.created_at for row in open_rows)]
        past = [sign for sign in signs if sign is not None and sign <= now + CLOCKS_APART]
        silent = now - max(past, default=now)
        if open_rows and silent > SWEEP_SILENCE:
            texts.append(
                f"{len(open_rows)} VMs are open, and nobody has reaped for {int(silent)} s"
            )
    return [_line(AuditFault.REAPER_SILENT, text) for text in texts]


def clocks(now: float, watch: ReaperActivity) -> list[Survivor]:
    """Return the faults of clocks: what was done at a time to come, and nodes whose clocks are
    further apart than can do no harm."""
    texts = [
        f"the reaper's last {what} was {int(last - now)} s in the future: a clock was set back"
        for what, last in (("pass", watch.passed), ("sweep", watch.swept))
        if last is not None and last - now > CLOCKS_APART
    ]
    texts += [
        f"the clock of {who} is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} "
        "the database's"
        for who, ahead in sorted(watch.ahead.items())
        if abs(ahead) > CLOCKS_APART
    ]
    return [_line(AuditFault.CLOCKS_APART, text) for text in texts]


def older_than(
    now: float, pages: Iterable[Page], tag: str, value: str, seconds: float
) -> list[Survivor]:
    """The resources with this tag that are older than `seconds`, for users of other runners. One of
    unknown age counts as old."""
    found = []
    for page in pages:
        for r in page.resources:
            if r.power is Power.DEAD or r.tags.get(tag) != value:
                continue
            age = None if r.created_at is None else now - r.created_at
            if age is None or age > seconds:
                late = None if age is None else age - seconds
                text = "of unknown age" if age is None else f"{int(age)} s old"
                found.append(_line(AuditFault.PAST_DEADLINE, f"{r.ref.id} is {text}", r, late))
    return found


def _thing(
    now: float, r: Resource, row: Instance | None, limits: Limits, builders: Collection[str]
) -> list[Survivor]:
    """The faults of one living resource of this installation. A schedule bills nothing and has a
    deadline of its own, past that of the VM that it ends; a definition has none."""
    if r.ref.kind is Kind.DEFINITION:
        return []
    schedule = r.ref.kind is Kind.SCHEDULE
    of_row = row.end if row and not schedule else None
    deadlines = [d for d in (r.expires_at, of_row) if d is not None]
    late = now - min(deadlines) if deadlines else None
    found = []
    # What is stopping may bill for ever, and only a delete that was accepted ends that.
    grace = max(STOPPING, limits.grace) if r.power is Power.STOPPING else limits.grace
    if late is not None and late > grace:
        found.append(
            _line(AuditFault.PAST_DEADLINE, f"{r.ref.id} is alive past its deadline", r, late)
        )
    if schedule or _new(r, now, limits):
        return found
    missing = [
        name
        for name, value in (
            ("role", r.role),
            ("instance", r.instance or (row and row.id)),
            ("expires-at", r.expires_at),
            ("generation", r.tag("generation")),
        )
        if value in (None, "") and (name, r.ref.kind) != ("generation", Kind.IMAGE)
    ]
    if missing:
        names = ", ".join(f"{TAG}{name}" for name in missing)
        found.append(_line(AuditFault.BADLY_TAGGED, f"{r.ref.id} has no usable {names}", r, late))
    elif row is None:
        builder = r.role is Role.IMAGE and r.instance in builders
        if r.role is not Role.GUARD and not builder:
            found.append(_line(AuditFault.UNKNOWN, f"{r.ref.id} has no row in the ledger", r, late))
    elif row.state is InstanceState.GONE:
        text = f"{r.ref.id} is alive, and its row is closed"
        found.append(_line(AuditFault.CLOSED, text, r, late))
    elif r.ref.kind is Kind.INSTANCE and row.ref not in (None, r.ref):
        assert row.ref is not None
        text = f"{r.ref.id} is not {row.ref.id}, which its row records"
        found.append(_line(AuditFault.DOUBLE, text, r, late))
    return found


def _twins(
    now: float,
    pages: list[Page],
    rows_by_id: Mapping[str, Instance],
    limits: Limits,
    installation: str,
) -> list[Survivor]:
    """VMs of one row that does not say yet which of them it is."""
    alive: dict[str, list[Resource]] = {}
    for page in pages:
        for r in page.resources:
            row = rows_by_id.get(r.instance or "")
            of_one = r.ref.kind is Kind.INSTANCE and r.tag("installation") == installation
            if of_one and row is not None and row.ref is None and r.alive:
                alive.setdefault(row.id, []).append(r)
    return [
        _line(AuditFault.DOUBLE, f"{r.ref.id} is one of {len(vms)} VMs of {name}", r)
        for name, vms in alive.items()
        for r in vms
        if len(vms) > 1 and not _new(r, now, limits)
    ]


def _new(r: Resource, now: float, limits: Limits) -> bool:
    return r.created_at is not None and now < r.created_at + limits.newborn


def _rows(
    now: float, rows: Iterable[Instance], pages: list[Page], limits: Limits, installation: str
) -> list[Survivor]:
    """The faults of the ledger's open rows."""
    broken = {(p.scope, p.kind) for p in pages if p.error is not None}
    read = {(p.scope, p.kind) for p in pages if p.error is None and not p.more} - broken
    vms = [r for p in pages for r in p.resources if r.ref.kind is Kind.INSTANCE]
    own = [r for r in vms if r.tag("installation") == installation and r.role is not Role.GUARD]
    visible_ids, visible_refs = {r.instance for r in own}, {r.ref for r in own}
    found = []
    for row in rows:
        if row.state is InstanceState.GONE or now < row.created_at + limits.newborn:
            continue
        late = now - row.end
        if row.id not in visible_ids and row.ref not in visible_refs:
            if (row.scope, Kind.INSTANCE) not in read:
                text = f"{row.id} is in {row.scope}, which was not read"
                found.append(_line(AuditFault.UNREAD, text, row, late))
            elif row.state is not InstanceState.DELETING or late > limits.newborn:
                text = f"{row.id} is {row.state.value} in the ledger, and not to be seen"
                found.append(_line(AuditFault.NOT_THERE, text, row, late))
        elif late > limits.grace and row.state is not InstanceState.DELETING:
            text = f"{row.id} is {row.state.value} past its deadline"
            found.append(_line(AuditFault.ROW_PAST_DEADLINE, text, row, late))
    return found


def _line(
    fault: AuditFault,
    message: str,
    of: Resource | Instance | None = None,
    late: float | None = None,
) -> Survivor:
    instance = of.instance if isinstance(of, Resource) else of.id if of else None
    return Survivor(
        fault=fault,
        instance=instance,
        ref=of.ref if of else None,
        late=late if late is not None and late > 0 else None,
        message=message,
    )
