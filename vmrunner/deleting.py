"""The delete of many things, in which no single one can save the others."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from vmrunner.errors import ProviderError
from vmrunner.model import Fate, Outcome, Ref
from vmrunner.providers import Provider
from vmrunner.report import failed, told
from vmrunner.verdicts import Kill

log = logging.getLogger("vmrunner")

BATCH: Final = 100

#: What became of each: of a thing by its reference, since its id alone may be that of a VM and of
#: its disk; of a row by the row's id.
Told = dict[Ref | str, str]


def kill(provider: Provider, kills: Iterable[Kill]) -> Told:
    """Delete what is condemned. Past `E` there is no time to count attempts: what refuses to die
    is forced at once."""
    wanted, now = list(kills), provider.now()
    done = _ask(provider, wanted)
    stubborn = [
        replace(one, force=True)
        for one in wanted
        if not one.force and now > (one.expires_at or now) and failed(done.get(one.ref, ""))
    ]
    return done | _ask(provider, stubborn)


def _ask(provider: Provider, kills: Iterable[Kill]) -> Told:
    """Delete in batches, parents before children, by what they were asked before."""
    wanted = list(kills)
    done: Told = {}
    while wanted:
        first = wanted[0]
        alike = [k for k in wanted if k.force == first.force and k.ref.kind == first.ref.kind]
        refs = [one.ref for one in alike[:BATCH]]
        asked = set(refs)
        wanted = [one for one in wanted if one.ref not in asked]
        outcomes = delete(provider, refs, force=first.force)
        done |= {ref: told(outcome) for ref, outcome in outcomes.items()}
    return done


def delete(provider: Provider, refs: Sequence[Ref], *, force: bool = False) -> dict[Ref, Outcome]:
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
            first = delete(provider, refs[:half], force=force)
            return first | delete(provider, refs[half:], force=force)
        log.exception("delete of %s", refs[0].id)
        outcomes = {refs[0]: Outcome(fate=Fate.FAILED, error=f"{type(error).__name__}: {error}")}
    silent = Outcome(fate=Fate.FAILED, error="the driver told no outcome")
    return {ref: outcomes.get(ref, silent) for ref in refs}
