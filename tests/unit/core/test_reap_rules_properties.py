"""What must hold of the reaper whatever comes."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.reaper_inputs import (
    GENERATION,
    LIMITS,
    MINE,
    NOW,
    SCOPE,
    I,
    before,
    page,
    reaped,
    row,
    vm,
)
from vmrunner.core.reap_plan import Deletion, Sighting, SightingKind
from vmrunner.core.reap_rules import subject
from vmrunner.model import Death, Instance, Kind, Page, Power, Ref, Resource, Role

# --- whatever comes ---

NAMES = st.sampled_from([f"vm-{n}" for n in range(4)])
#: Anywhere, and often where a limit makes the difference.
TIMES = (
    st.sampled_from([-15_000, -14_000, -1000, -700, 700, 15_000]) | st.integers(-20_000, 20_000)
).map(lambda n: NOW + n)
ROWS = st.lists(
    st.builds(
        row,
        NAMES,
        state=st.sampled_from(list(I)),
        created_at=TIMES,
        state_since=TIMES,
        deadline=TIMES,
        build=st.sampled_from(["b-1", None]),
        due=st.none() | TIMES,
        ref=st.sampled_from([None, *(Ref(SCOPE, Kind.INSTANCE, f"i-{n}") for n in range(3))]),
    ),
    unique_by=lambda r: r.id,
    max_size=6,
)
RESOURCES = st.lists(
    st.builds(
        vm,
        NAMES,
        id=st.sampled_from([f"i-{n}" for n in range(9)]),
        kind=st.sampled_from([Kind.INSTANCE, Kind.DISK]),
        power=st.sampled_from(list(Power)),
        created_at=st.none() | TIMES,
        tags=st.fixed_dictionaries(
            {},
            optional={
                "vmrunner:installation": st.sampled_from([MINE, MINE, MINE + "x", "", None]),
                "vmrunner:instance": st.none() | NAMES,
                "vmrunner:role": st.sampled_from(["build", "image", "pool", "guard", "x"]),
                "vmrunner:generation": st.sampled_from([GENERATION, "other"]),
                "vmrunner:expires-at": st.sampled_from(
                    [
                        None,
                        None,
                        None,
                        "x",
                        *(str(int(NOW + n)) for n in (-9999, -5, 5, 300, 10**5)),
                    ]
                ),
                "vmrunner:max-ttl": st.sampled_from(
                    ["x", "600", "600", str(int(LIMITS.max_ttl * 2))]
                ),
            },
        ),
    ),
    unique_by=lambda r: r.ref,
    min_size=4,
    max_size=9,
)


def paged(resources: list[Resource], broken: bool) -> list[Page]:
    pages = [
        page(*[r for r in resources if r.ref.kind is kind], kind=kind)
        for kind in (Kind.INSTANCE, Kind.DISK)
    ]
    return [*pages, page(error="x")] if broken else pages


@given(ROWS, RESOURCES, st.booleans(), st.randoms())
def test_the_order_of_a_listing_means_nothing(rows, resources, broken, random) -> None:
    memory = before(reaped(rows, paged(resources, broken)))
    pages = paged(resources, broken)
    plan = reaped(rows, pages, memory)
    mixed = list(resources)
    random.shuffle(mixed)
    shuffled = [part for r in mixed for part in [page(r, kind=r.ref.kind, more=True)]]
    shuffled += [page(kind=k) for k in (Kind.INSTANCE, Kind.DISK)]
    shuffled += [page(error="x")] if broken else []
    other = list(rows)
    random.shuffle(other)
    assert reaped(other, shuffled, memory) == plan


WISHES = st.dictionaries(NAMES, st.sampled_from([Death.CANCELLED, Death.ABANDONED, Death.DONE]))


def deadline(resource: Resource, mine: Instance | None, memory: frozenset[Sighting]) -> float:
    """Design §6, written once more: what was promised to this resource."""
    tag = resource.tags.get("vmrunner:expires-at", "")
    deadlines = [float(tag)] if re.fullmatch("[0-9]{1,12}", tag) else []
    deadlines += [mine.deadline] if mine else []
    deadlines += [mine.due] if mine and mine.due is not None else []
    if deadlines:
        return min(deadlines)
    seen = [s.begun for s in memory if resource.ref.id == s.subject.split("|")[-1]]
    created_at = resource.created_at if resource.created_at is not None else min(seen, default=NOW)
    limit = resource.tags.get("vmrunner:max-ttl", "")
    return created_at + (float(limit) if limit.isdigit() else LIMITS.max_ttl)


def row_of(resource: Resource, rows: list[Instance]) -> Instance | None:
    """Whose row it is: the tag says so, else the row that recorded it while that is open."""
    named = [r for r in rows if r.id == resource.instance]
    recorded = [r for r in rows if r.ref == resource.ref and r.state is not I.GONE]
    return (named + sorted(recorded, key=lambda r: r.id) + [None])[0]


def nameless(resource: Resource, rows: list[Instance]) -> bool:
    """May it be what a create made that has not answered yet?"""
    created_at = NOW if resource.created_at is None else resource.created_at
    return not resource.instance and any(
        r.state is I.REQUESTED
        and r.ref is None
        and r.created_at <= created_at
        and r.created_at + LIMITS.newborn >= NOW
        for r in rows
    )


def ends(mine: Instance) -> float:
    return mine.deadline if mine.due is None else min(mine.deadline, mine.due)


def condemned(
    kill: Deletion,
    resource: Resource,
    mine: Instance | None,
    memory: frozenset[Sighting],
    rows: list[Instance],
) -> bool:
    """May it die for this reason?"""
    if kill.reason is Death.EXPIRED:
        return deadline(resource, mine, memory) < NOW
    if resource.role not in (Role.BUILD, Role.POOL):
        return False
    if kill.reason is Death.LEFTOVER:
        return mine is not None and mine.state is I.GONE
    if kill.reason is Death.DUPLICATE:
        other = mine is not None and mine.ref not in (None, kill.ref)
        return other and kill.ref.kind is Kind.INSTANCE and mine.state is not I.GONE
    if kill.reason is Death.ORPHAN:
        (first,) = [
            s for s in memory if s.what is SightingKind.ORPHAN and s.subject == subject(kill.ref)
        ]
        created_at = resource.created_at
        ours = resource.tag("generation") == GENERATION and mine is None
        early = first.begun if created_at is None else created_at
        ours = ours and not nameless(resource, rows)
        return ours and (created_at is None or first.begun > early + LIMITS.newborn)
    return False


@settings(max_examples=300)
@given(ROWS, RESOURCES, st.booleans(), WISHES)
def test_no_murder_and_no_forgetting(rows, resources, broken, early_deaths) -> None:
    memory = before(reaped(rows, paged(resources, broken)))
    plan = reaped(rows, paged(resources, broken), memory, early_deaths=early_deaths)
    by_id = {r.id: r for r in rows}
    by_ref = {r.ref: r for r in resources}
    for kill in plan.kills:
        resource = by_ref[kill.ref]
        mine = row_of(resource, rows)
        assert resource.tag("installation") == MINE
        assert resource.role in (Role.BUILD, Role.POOL, Role.IMAGE)
        assert condemned(kill, resource, mine, memory, rows), kill
    for kill in plan.later:  # killed by time alone, before anybody looks again
        resource = by_ref[kill.ref]
        assert resource.tag("installation") == MINE
        due = deadline(resource, row_of(resource, rows), memory)
        assert kill.expires_at == due >= NOW
    assert len([k for k in plan.kills if k.reason is Death.ORPHAN]) <= LIMITS.orphan_cap
    for close in plan.closes:
        assert not broken
        mine = by_id[close.instance]
        assert mine.state is not I.GONE
        (first,) = [s for s in memory if s.what is SightingKind.ABSENT and s.subject == mine.id]
        assert first.begun > mine.created_at + LIMITS.newborn
        vms = [r for r in resources if r.ref.kind is Kind.INSTANCE]
        ours = [
            r
            for r in vms
            if r.tag("installation") == MINE and r.role in (Role.BUILD, Role.POOL, Role.IMAGE)
        ]
        assert close.instance not in {r.instance for r in ours}
        assert mine.ref not in by_ref
    for mark in plan.marks:
        mine = by_id[mark.instance]
        assert mine.state not in (I.DELETING, I.GONE)
        if mark.reason is Death.EXPIRED:
            assert ends(mine) < NOW
        elif mark.reason is Death.STUCK:
            limits = {I.REQUESTED: 900, I.BOOTING: 900, I.READY: 600, I.PARKING: 600, I.WAKING: 600}
            assert mine.build is not None or mine.state is not I.READY  # it waits for a build
            assert mine.state_since + limits[mine.state] < NOW
        else:
            assert early_deaths[mine.id] is mark.reason
    # Whatever is past its row's deadline is marked or dying, or closed; so is what was wished dead.
    marked = {d.instance for d in plan.marks}
    for mine in rows:
        if (ends(mine) < NOW or mine.id in early_deaths) and mine.state not in (I.DELETING, I.GONE):
            assert mine.id in marked
    # And whatever is past its own dies now.
    dying = {kill.ref for kill in plan.kills}
    for resource in resources:
        ours = resource.tag("installation") == MINE and resource.role in (
            Role.BUILD,
            Role.POOL,
            Role.IMAGE,
        )
        mine = row_of(resource, rows)
        if ours and resource.alive and deadline(resource, mine, memory) < NOW:
            assert resource.ref in dying


@given(ROWS, RESOURCES, RESOURCES)
def test_a_poison_item_changes_no_other_deletion(rows, resources, more) -> None:
    """Below the cap on orphans; every kind of item is for itself."""
    memory = before(reaped(rows, paged(resources, broken=False)))
    poison = [
        replace(r, ref=r.ref._replace(id=f"x-{r.ref.id}", kind=Kind.KEY), tags={"a": "b"})
        for r in more
    ]
    plain = reaped(rows, paged(resources, broken=False), memory)
    pages = [*paged(resources, broken=False), page(*poison, kind=Kind.KEY, error="AccessDenied")]
    assert reaped(rows, pages, memory) == plain


@given(ROWS, RESOURCES)
def test_parents_come_before_children(rows, resources) -> None:
    kinds = [kill.ref.kind is Kind.INSTANCE for kill in reaped(rows, paged(resources, False)).kills]
    assert kinds == sorted(kinds, reverse=True)
