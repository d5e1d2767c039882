"""The end of all that is past its deadline, by what it says itself: no ledger is needed.

For the day when the ledger is lost, broken or out of reach, and for whoever cannot wait for the
reaper. What a ledger knows beside (a row's own deadline) can only be in a VM's favour here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from vmrunner.core.reap_plan import Deletion
from vmrunner.core.reap_rules import ReapInput, decide
from vmrunner.core.sweep_view import SweepView
from vmrunner.errors import VmrunnerError
from vmrunner.model import Death, Fate, Instance, Key, Kind, Power, Ref
from vmrunner.providers.deletion import delete_each
from vmrunner.reaper.gather import read_sweep
from vmrunner.reaper.report import Report, ReportLine, line_of, told

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.model import Limits
    from vmrunner.providers import Provider

SEEN_DEAD: Final = "dead"  # the outcome of a VM that is seen dead, or not to be seen any more
_ROUND: Final = 0.5  # seconds between two looks


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
    for name, provider in providers.items():
        if only not in (None, name):
            continue
        try:
            listing = SweepView(limits, installation, "")
            rows = read_sweep(provider, listing, lambda ids: _rows(ledger, ids))
            plan = decide(ReapInput(now=provider.now(), rows=rows, listing=listing))
            kills = [kill for kill in plan.kills if kill.reason is Death.EXPIRED]
            done, blind = ({}, []) if dry_run else _end(provider, kills, seconds, sleep)
        except Exception as error:  # noqa: BLE001 - one provider never spares the others' dead
            report += Report(unread=(f"{name}: {type(error).__name__}: {error}",))
            continue
        now = provider.now()
        lines = [_line(name, now, kill, rows, done) for kill in kills]
        holes = [*(f"{name}: {hole}" for hole in listing.holes), *blind]
        report += Report(lines=tuple(lines), unread=tuple(holes))
    return report


def _rows(ledger: Ledger | None, instances: Collection[str]) -> dict[str, Instance]:
    try:
        return {row.id: row for row in ledger.instances.these(instances)} if ledger else {}
    except VmrunnerError:  # what it would add can only be in their favour
        return {}


def _line(
    name: str, now: float, kill: Deletion, rows: dict[str, Instance], done: dict[Ref, str]
) -> ReportLine:
    return line_of(name, now, kill, rows.get(kill.instance or ""), done.get(kill.ref, ""))


def _end(
    provider: Provider, kills: list[Deletion], seconds: float, sleep: Callable[[float], None]
) -> tuple[dict[Ref, str], list[str]]:
    """VMs first, then what was attached to them. What became of each, and where nobody could be
    looked at."""
    vms = {k.ref: k.instance or "" for k in kills if k.ref.kind is Kind.INSTANCE}
    done = _ask(provider, vms)
    dying = {ref for ref in vms if not done[ref].startswith(Fate.FAILED)}
    blind: list[str] = []
    waited = 0.0
    while dying:
        keys = {Key(ref.scope, vms[ref], ref.id): ref for ref in dying}
        alive, dead, blind = _seen(provider, keys)
        done |= dict.fromkeys(dead, SEEN_DEAD)
        dying = alive
        if not dying or waited >= seconds:
            break
        sleep(_ROUND)
        waited += _ROUND
    rest = _ask(provider, [kill.ref for kill in kills if kill.ref not in vms])
    return done | rest, blind


def _seen(provider: Provider, keys: Mapping[Key, Ref]) -> tuple[set[Ref], set[Ref], list[str]]:
    """Those seen alive or in a place that cannot be looked at, those seen dead, and what was wrong
    with such places. What is in neither is not visible, which proves nothing."""
    alive: set[Ref] = set()
    dead: set[Ref] = set()
    blind = []
    for scope in sorted({key.scope for key in keys}):
        here = [key for key in keys if key.scope == scope]
        try:
            seen = provider.look(here)
        except Exception as error:  # noqa: BLE001 - one place never hides what died in another
            blind.append(f"{provider.name}: {scope}: {type(error).__name__}: {error}")
            alive |= {keys[key] for key in here}
        else:
            for key, sight in seen.items():
                (dead if sight.power is Power.DEAD else alive).add(keys[key])
    return alive, dead, blind


def _ask(provider: Provider, refs: Iterable[Ref]) -> dict[Ref, str]:
    """Twice at most, the second time by force."""
    outcomes = delete_each(provider, list(refs))
    stubborn = [ref for ref, outcome in outcomes.items() if outcome.fate is Fate.FAILED]
    outcomes |= delete_each(provider, stubborn, force=True)
    return {ref: told(outcome) for ref, outcome in outcomes.items()}
