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
class DeletionProgress:
    """Outcome for VMs that were to die. One that is neither dead nor in `waiting` was refused
    or is not visible, which proves nothing. `blind`: what was wrong with places that could not be
    looked at last."""

    waiting: set[Key]
    outcomes: dict[Ref, Outcome] = field(default_factory=dict)
    dead: set[Key] = field(default_factory=set)
    blind: list[str] = field(default_factory=list)

    @property
    def refused(self) -> str:
        """The reason why a VM was refused; "" where none was."""
        failed = (
            outcome.error for outcome in self.outcomes.values() if outcome.fate is Fate.FAILED
        )
        return next(failed, "")


def delete_until_dead(
    provider: Provider,
    vms: Mapping[Key, Ref | None],
    *,
    seconds: float,
    pause: float = 0.5,
    force: bool = False,
    ask: bool = True,
    closed: Callable[[], bool] | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> DeletionProgress:
    """Delete VMs for which there is no time to lose, what is refused at once by force; then look
    every `pause` seconds, for at most `seconds`, until none is seen alive. A VM without a reference
    is deleted when a look has shown it. What lives on for `DELETE_RETRY` is forced. A place that
    cannot be looked at is asked again. `ask`: False where all were asked before. `closed`: tells
    whether others know that it is over; what is not visible is waited for until then."""
    refs = {key: ref for key, ref in vms.items() if ref is not None}
    progress, due, waited = DeletionProgress(set(vms)), dict[Key, float](), 0.0
    while progress.waiting and not (closed is not None and closed()):
        alive = {key: refs[key] for key in refs if key in progress.waiting}
        turn = {key: ref for key, ref in alive.items() if waited >= due.get(key, 0.0)}
        if ask:
            _insist(provider, progress, turn, force=force or waited >= DELETE_RETRY)
        due |= dict.fromkeys(turn, waited + DELETE_RETRY)
        refs |= _look(provider, progress, hidden=closed is not None)
        if not progress.waiting or waited >= seconds:
            break
        sleep(pause)
        waited += pause
    return progress


def _insist(
    provider: Provider, progress: DeletionProgress, vms: Mapping[Key, Ref], *, force: bool
) -> None:
    """Ask twice at most, the second time by force. What is refused is not waited for."""
    outcomes = delete_each(provider, list(vms.values()), force=force)
    refused = [ref for ref, outcome in outcomes.items() if outcome.fate is Fate.FAILED]
    progress.outcomes |= outcomes | delete_each(provider, refused, force=True)
    progress.waiting -= {k for k, ref in vms.items() if progress.outcomes[ref].fate is Fate.FAILED}


def _look(provider: Provider, progress: DeletionProgress, *, hidden: bool) -> dict[Key, Ref]:
    """Note VMs that are dead and that are waited for; return the ones seen alive. One place after
    the other: one that fails never hides a death in another."""
    alive: dict[Key, Ref] = {}
    progress.blind = []
    for scope in sorted({key.scope for key in progress.waiting}):
        in_scope = [key for key in progress.waiting if key.scope == scope]
        try:
            seen = provider.look(in_scope)
        except Exception as error:  # noqa: BLE001 - see above
            progress.blind.append(f"{scope}: {type(error).__name__}: {error}")
            continue
        progress.dead |= {key for key, view in seen.items() if view.power is Power.DEAD}
        alive |= {key: view.ref for key, view in seen.items() if view.power is not Power.DEAD}
        progress.waiting -= progress.dead if hidden else set(in_scope) - alive.keys()
    return alive
