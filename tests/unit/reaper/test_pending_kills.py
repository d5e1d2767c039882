from __future__ import annotations

import threading
from typing import Any

from tests.support.reaper_inputs import GENERATION, LIMITS, MINE, NOW, SCOPE, page
from vmrunner.core.reap_plan import Deletion, ReapPlan
from vmrunner.core.sweep_view import SweepView
from vmrunner.model import Death, Kind, Ref
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
