"""The delete of many things, in which no single one can save the others."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from vmrunner.errors import ProviderError
from vmrunner.model import Fate, Key, Outcome, Power, Ref
from vmrunner.providers import Provider

log = logging.getLogger("vmrunner")

#: After an accepted delete, seconds until it is asked again.
DELETE_RETRY: Final = 30.0
#: Attempts without force, while there is time to count them.
FORCE_AFTER: Final = 3


def delete_each(
    provider: Provider, refs: Sequence[Ref], *, force: bool = False
) -> dict[Ref, Outcome]:
    """An outcome for each. When the driver itself fails over a batch, it is halved until only the
    one that it cannot bear is left out; a cloud that does not answer is asked once."""
    if not refs:
        return {}
    try:
        outcomes = provider.delete(refs, force=force)
    except ProviderError as error:
        outcomes = {ref: Outcome(fate=Fate.FAILED, error=str(error)) for ref in refs}
    except Exception as error:  # a driver's bug
        if len(refs) > 1:
            half = len(refs) // 2
            first = delete_each(provider, refs[:half], force=force)
            return first | delete_each(provider, refs[half:], force=force)
        log.exception("delete of %s", refs[0].id)
        outcomes = {refs[0]: Outcome(fate=Fate.FAILED, error=f"{type(error).__name__}: {error}")}
    silent = Outcome(fate=Fate.FAILED, error="the driver told no outcome")
    return {ref: outcomes.get(ref, silent) for ref in refs}


@dataclass(slots=True)
class Deaths:
    """Outcome for VMs that were to die. One that is neither dead nor in `waiting` was refused
    or is not visible, which proves nothing. `blind`: what was wrong with places that could not be
    looked at last."""

    outcomes: dict[Ref, Outcome]
    waiting: set[Key]
    dead: set[Key] = field(default_factory=set)
    blind: list[str] = field(default_factory=list)


def delete_until_dead(
    provider: Provider,
    vms: Mapping[Key, Ref],
    *,
    seconds: float,
    pause: float = 0.5,
    force: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Deaths:
    """Delete VMs for which there is no time to lose, what is refused at once by force; then look
    every `pause` seconds, for at most `seconds`, until none is seen alive. What lives on for
    `DELETE_RETRY` is forced. A place that cannot be looked at is asked again."""
    deaths = Deaths(_insist(provider, list(vms.values()), force=force), set())
    deaths.waiting = {k for k, ref in vms.items() if deaths.outcomes[ref].fate is not Fate.FAILED}
    waited, asked = 0.0, 0.0
    while deaths.waiting:
        _look(provider, deaths)
        if not deaths.waiting or waited >= seconds:
            break
        sleep(pause)
        waited += pause
        if waited - asked >= DELETE_RETRY:
            asked = waited
            delete_each(provider, [vms[key] for key in sorted(deaths.waiting)], force=True)
    return deaths


def _insist(provider: Provider, refs: Sequence[Ref], *, force: bool) -> dict[Ref, Outcome]:
    """Twice at most, the second time by force."""
    outcomes = delete_each(provider, refs, force=force)
    refused = [ref for ref, outcome in outcomes.items() if outcome.fate is Fate.FAILED]
    return outcomes | delete_each(provider, refused, force=True)


def _look(provider: Provider, deaths: Deaths) -> None:
    """One place after the other: one that fails never hides what died in another."""
    alive: set[Key] = set()
    deaths.blind = []
    for scope in sorted({key.scope for key in deaths.waiting}):
        here = [key for key in deaths.waiting if key.scope == scope]
        try:
            seen = provider.look(here)
        except Exception as error:  # noqa: BLE001 - see above
            deaths.blind.append(f"{scope}: {type(error).__name__}: {error}")
            alive.update(here)
        else:
            for key, sight in seen.items():
                (deaths.dead if sight.power is Power.DEAD else alive).add(key)
    deaths.waiting = alive
