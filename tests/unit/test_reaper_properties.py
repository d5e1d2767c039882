"""What must hold of the reaper whatever comes."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.reapable import (
    GENERATION,
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
from vmrunner.model import (
    Death,
    Kind,
    Page,
    Power,
    Ref,
    Resource,
    Role,
)

# --- whatever comes ---

NAMES = st.sampled_from([f"vm-{n}" for n in range(6)])
TIMES = st.integers(-20_000, 20_000).map(lambda n: NOW + n)
ROWS = st.lists(
    st.builds(
        row,
        NAMES,
        state=st.sampled_from(list(I)),
        created_at=TIMES,
        state_since=TIMES,
        deadline=TIMES,
        ref=st.sampled_from([None, Ref(SCOPE, Kind.INSTANCE, "i-vm-1")]),
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
                "vmrunner:installation": st.sampled_from([MINE, MINE + "x", "", None]),
                "vmrunner:role": st.sampled_from(["build", "image", "guard", "x"]),
                "vmrunner:generation": st.sampled_from([GENERATION, "other"]),
                "vmrunner:expires-at": st.sampled_from(
                    [None, "x", str(int(NOW - 5)), str(int(NOW + 5)), str(int(NOW + 10**5))]
                ),
            },
        ),
    ),
    unique_by=lambda r: r.ref,
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


@given(ROWS, RESOURCES, st.booleans())
def test_no_murder_and_no_forgetting(rows, resources, broken) -> None:
    memory = before(reaped(rows, paged(resources, broken)))
    plan = reaped(rows, paged(resources, broken), memory)
    by_id = {r.id: r for r in rows}
    by_ref = {r.ref: r for r in resources}
    for kill in plan.kills:
        resource = by_ref[kill.ref]
        mine = by_id.get(resource.instance or "")
        assert resource.tag("installation") == MINE
        assert resource.role in (Role.BUILD, Role.IMAGE)
        if mine is not None and mine.deadline > NOW and kill.reason is not Death.EXPIRED:
            assert mine.state is I.GONE or mine.ref not in (None, kill.ref)
    for close in plan.closes:
        assert not broken
        vms = [r for r in resources if r.ref.kind is Kind.INSTANCE]
        ours = [r for r in vms if r.tag("installation") == MINE and r.role in (Role.BUILD, "image")]
        assert close.instance not in {r.instance for r in ours}
        assert by_id[close.instance].ref not in by_ref
    # Whatever is past its row's deadline is doomed or dying, or closed.
    doomed = {d.instance for d in plan.dooms}
    for mine in rows:
        if mine.deadline < NOW and mine.state not in (I.DELETING, I.GONE):
            assert mine.id in doomed


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
