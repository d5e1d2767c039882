"""The end of all that is past its deadline, by what it says itself: no ledger is needed.

For the day when the ledger is lost, broken or out of reach, and for whoever cannot wait for the
reaper. What a ledger knows beside (a row's own deadline) can only be in a VM's favour here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from vmrunner import fleet, reaper
from vmrunner.deleting import delete
from vmrunner.errors import VmrunnerError
from vmrunner.listing import Listing
from vmrunner.model import Death, Fate, Instance, Key, Kind, Power, Ref
from vmrunner.report import Line, Report, line_of, told
from vmrunner.surveying import take_in
from vmrunner.verdicts import Kill

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.providers import Provider
    from vmrunner.wiring import Wiring

DEAD: Final = "dead"  # the outcome of a VM that is seen dead, or not to be seen any more
_ROUND: Final = 0.5  # seconds between two looks


def end(
    wiring: Wiring,
    *,
    only: str | None = None,
    dry_run: bool = False,
    seconds: float = 0.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """Delete all of this installation that is past its deadline; wait at most `seconds`, for each
    provider, until its VMs are seen dead."""
    try:
        ledger = wiring.ledger
    except VmrunnerError:
        ledger = None
    providers, broken = fleet.opened(wiring)
    report = Report(unread=tuple(str(e) for n, e in broken.items() if only in (None, n)))
    for name, provider in providers.items():
        if only not in (None, name):
            continue
        try:
            listing = Listing(wiring.limits().limits, wiring.installation, "")
            rows = take_in(provider, listing, lambda ids: _rows(ledger, ids))
            kills = _expired(wiring, provider, listing, rows)
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


def _expired(
    wiring: Wiring, provider: Provider, listing: Listing, rows: dict[str, Instance]
) -> list[Kill]:
    limits, installation = wiring.limits().limits, wiring.installation
    plan = reaper.conclude(provider.now(), rows, listing, (), limits, installation, "")
    return [kill for kill in plan.kills if kill.reason is Death.EXPIRED]


def _line(
    name: str, now: float, kill: Kill, rows: dict[str, Instance], done: dict[Ref, str]
) -> Line:
    return line_of(name, now, kill, rows.get(kill.instance or ""), done.get(kill.ref, ""))


def _end(
    provider: Provider, kills: list[Kill], seconds: float, sleep: Callable[[float], None]
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
        alive, blind = _alive(provider, keys)
        done |= dict.fromkeys(dying - alive, DEAD)
        dying = alive
        if not dying or waited >= seconds:
            break
        sleep(_ROUND)
        waited += _ROUND
    rest = _ask(provider, [kill.ref for kill in kills if kill.ref not in vms])
    return done | rest, blind


def _alive(provider: Provider, keys: Mapping[Key, Ref]) -> tuple[set[Ref], list[str]]:
    """Those that are not seen dead; a place that cannot be looked at shows no death, and why."""
    alive: set[Ref] = set()
    blind = []
    for scope in sorted({key.scope for key in keys}):
        here = [key for key in keys if key.scope == scope]
        try:
            seen = provider.look(here)
        except Exception as error:  # noqa: BLE001 - one place never hides what died in another
            blind.append(f"{provider.name}: {scope}: {type(error).__name__}: {error}")
            alive |= {keys[key] for key in here}
        else:
            alive |= {keys[key] for key, sight in seen.items() if sight.power is not Power.DEAD}
    return alive, blind


def _ask(provider: Provider, refs: Iterable[Ref]) -> dict[Ref, str]:
    """Twice at most, the second time by force."""
    outcomes = delete(provider, list(refs))
    stubborn = [ref for ref, outcome in outcomes.items() if outcome.fate is Fate.FAILED]
    outcomes |= delete(provider, stubborn, force=True)
    return {ref: told(outcome) for ref, outcome in outcomes.items()}
