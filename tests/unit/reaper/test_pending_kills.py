from __future__ import annotations

import threading
from typing import Any

from tests.support.pools import instance
from tests.support.reaper_inputs import GENERATION, LIMITS, MINE, NOW, SCOPE, page
from vmrunner.core.reap_plan import Deletion, ReapPlan
from vmrunner.core.sweep_view import SweepView
from vmrunner.model import Death, Instance, Kind, Ref, Scope
from vmrunner.reaper.pending_kills import PendingKills
from vmrunner.reaper.report import LineFate, LineOutcome

LISTING = SweepView(LIMITS, MINE, GENERATION)


def late(name: str) -> Deletion:
    return Deletion(ref=Ref(SCOPE, Kind.INSTANCE, name), reason=Death.EXPIRED, expires_at=NOW - 1)


def test_sweep_results_during_a_pass_are_kept() -> None:
    """They go on side by side."""
    pending = PendingKills()
    pending.learn(ReapPlan(kills=(late("i-1"),)), LISTING)
    sweep = threading.Thread(target=pending.learn, args=(ReapPlan(kills=(late("i-2"),)), LISTING))

    class Slow(dict[Ref | str, LineOutcome]):
        def get(self, key: Ref | str, default: Any = None) -> Any:
            if sweep.ident is None:
                sweep.start()
                sweep.join(0.3)
            return super().get(key, default)

    pending.answered(Slow({late("i-1").ref: LineOutcome(LineFate.ACCEPTED)}))
    sweep.join()
    assert [kill.ref.id for kill in pending.due(NOW)] == ["i-2"]


def test_news_of_a_disk_is_no_news_of_its_vm() -> None:
    """On Compute Engine a VM's first disk is called as the VM is."""
    pending = PendingKills()
    pending.learn(ReapPlan(kills=(late("vm-1"),)), LISTING)
    pending.answered({Ref(SCOPE, Kind.DISK, "vm-1"): LineOutcome(LineFate.MISSING)})
    assert [kill.ref.kind for kill in pending.due(NOW)] == [Kind.INSTANCE]


def test_what_a_sweep_could_not_read_stays_known() -> None:
    pending = PendingKills()
    pending.learn(ReapPlan(kills=(late("i-1"),)), LISTING)
    failed = SweepView(LIMITS, MINE, GENERATION)
    failed.take(page(error="down"), {}, NOW)
    pending.learn(ReapPlan(), failed)
    assert [kill.ref.id for kill in pending.due(NOW)] == ["i-1"]
    # Of another kind, nothing could be said; this one was read, and it is not there.
    other = SweepView(LIMITS, MINE, GENERATION)
    other.take(page(kind=Kind.DISK, error="down"), {}, NOW)
    other.take(page(), {}, NOW)
    pending.learn(ReapPlan(), other)
    assert pending.due(NOW) == ()


def row(name: str, end: float, scope: Scope = SCOPE) -> Instance:
    ref = Ref(scope, Kind.INSTANCE, f"i-{name}")
    return instance(id=name, ref=ref, deadline=end, build=None)


def overdue(pending: PendingKills, now: float) -> list[str]:
    return [kill.instance or kill.ref.id for kill in pending.overdue(now, 30.0)]


def test_rows_are_known_until_they_are_read_again() -> None:
    pending, other = PendingKills(), Scope("fake", "account", "elsewhere")
    pending.learn_rows([SCOPE], [row("vm-1", NOW), row("vm-2", NOW)])
    pending.learn_rows([other], [row("vm-3", NOW, other)])
    assert overdue(pending, NOW + 30.0) == []
    assert overdue(pending, NOW + 31.0) == ["vm-1", "vm-2", "vm-3"]
    assert overdue(pending, NOW + 60.0) == [], "each is asked for now and then"
    pending.learn_rows([SCOPE], [], unread={"vm-2"})
    assert overdue(pending, NOW + 61.0) == ["vm-2", "vm-3"]
    pending.answered({Ref(SCOPE, Kind.INSTANCE, "i-vm-2"): LineOutcome(LineFate.MISSING)})
    assert overdue(pending, NOW + 99.0) == ["vm-3"]


def test_what_is_listed_is_overdue_too() -> None:
    pending = PendingKills()
    pending.learn(ReapPlan(kills=(late("i-1"),)), LISTING)
    assert overdue(pending, NOW + 29.0) == []
    assert overdue(pending, NOW + 31.0) == ["i-1"]


def test_a_rows_later_deadline_is_in_its_favour() -> None:
    pending = PendingKills()
    pending.learn_rows([SCOPE], [row("vm-1", NOW + 100)])
    early = Deletion(ref=Ref(SCOPE, Kind.INSTANCE, "i-vm-1"), reason=Death.EXPIRED, expires_at=NOW)
    pending.learn(ReapPlan(later=(early,)), LISTING)
    assert overdue(pending, NOW + 99.0) == []
    assert overdue(pending, NOW + 131.0) == ["vm-1"]
