"""The end of all that is past its deadline, by what it says itself: no ledger is needed.

For the day when the ledger is lost, broken or out of reach, and for users who cannot wait for the
reaper. What a ledger knows beside (a row's own deadline) can only be in a VM's favour here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from vmrunner.core.reap_plan import Deletion
from vmrunner.core.reap_rules import ReapInput, decide
from vmrunner.core.sweep_view import SweepView
from vmrunner.errors import VmrunnerError
from vmrunner.model import Death, Instance, Key, Kind, Resource
from vmrunner.providers.deletion import delete_until_dead
from vmrunner.providers.retired_providers import parts
from vmrunner.reaper import image_kills
from vmrunner.reaper.gather import read_sweep, rows_of_resources
from vmrunner.reaper.kills import kill
from vmrunner.reaper.report import DEAD, NOTHING, LineOutcome, Outcomes, Report, line_of

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.model import Limits
    from vmrunner.providers import Provider

SEEN_DEAD: Final = str(DEAD)  # the outcome of a VM that is seen dead


def delete_expired(
    ledger: Ledger | None,
    providers: Mapping[str, Provider],
    limits: Limits,
    installation: str,
    *,
    broken: Mapping[str, VmrunnerError] = MappingProxyType({}),
    only: str | None = None,
    dry_run: bool = False,
    seconds: float = 0.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """Delete all of this installation that is past its deadline; wait at most `seconds`, for each
    provider, until its VMs are seen dead."""
    report = Report(unread=tuple(str(e) for n, e in broken.items() if only in (None, n)))
    chosen = [item for item in providers.items() if only in (None, item[0])]
    for name, provider in (
        (n, part) for n, several in chosen for part in parts(n, several).values()
    ):
        try:
            sweep_view = SweepView(limits, installation, "")
            rows = read_sweep(provider, sweep_view, partial(_rows, ledger))
            plan = decide(ReapInput(now=provider.now(), rows=rows, sweep_view=sweep_view))
            kills = [kill for kill in plan.kills if kill.reason is Death.EXPIRED]
            wanted = [] if dry_run else kills
            done, blind = _end(ledger, provider, wanted, seconds, sleep)
        except Exception as error:  # noqa: BLE001 - one provider never spares the others' dead
            report += Report(unread=(f"{name}: {type(error).__name__}: {error}",))
            continue
        now = provider.now()
        lines = [
            line_of(name, now, k, rows.get(k.instance or ""), done.get(k.ref, NOTHING))
            for k in kills
        ]
        holes = [*(f"{name}: {hole}" for hole in sweep_view.holes), *blind]
        report += Report(lines=tuple(lines), unread=tuple(holes))
    return report


def _rows(ledger: Ledger | None, resources: Collection[Resource]) -> dict[str, Instance]:
    try:
        return rows_of_resources(ledger, resources) if ledger else {}
    except VmrunnerError:  # what it would add can only be in their favour
        return {}


def _end(
    ledger: Ledger | None,
    provider: Provider,
    kills: list[Deletion],
    seconds: float,
    sleep: Callable[[float], None],
) -> tuple[Outcomes, list[str]]:
    """VMs first, then what was attached to them, then images. The outcome of each, and messages
    about where no look was possible."""
    vms = {
        Key(k.ref.scope, k.instance or "", k.ref.id): k.ref
        for k in kills
        if k.ref.kind is Kind.INSTANCE
    }
    deleted = delete_until_dead(provider, vms, seconds=seconds, sleep=sleep)
    done: Outcomes = {ref: LineOutcome.of(outcome) for ref, outcome in deleted.outcomes.items()}
    done |= {vms[key]: DEAD for key in deleted.dead}
    others = [k for k in kills if k.ref.kind is not Kind.INSTANCE and not image_kills.is_image(k)]
    done |= kill(provider, others)
    done |= image_kills.end(ledger, provider, kills)
    return done, [f"{provider.name}: {hole}" for hole in deleted.blind]
