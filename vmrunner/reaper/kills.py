"""The deletes of a plan, parents first, forced where their time is over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from vmrunner.core.reap_plan import Deletion
from vmrunner.providers import Provider
from vmrunner.providers.deletion import delete_each
from vmrunner.reaper.report import LineFate, LineOutcome, Outcomes

DELETE_BATCH: Final = 100


def kill(provider: Provider, kills: Iterable[Deletion]) -> Outcomes:
    """Delete what is condemned. Past `E` there is no time to count attempts: what refuses to die
    is forced at once."""
    wanted, now = list(kills), provider.now()
    done = _ask(provider, wanted)
    refused = {ref for ref, outcome in done.items() if outcome.fate is LineFate.FAILED}
    stubborn = [
        replace(deletion, force=True)
        for deletion in wanted
        if not deletion.force and now > (deletion.expires_at or now) and deletion.ref in refused
    ]
    return done | _ask(provider, stubborn)


def _ask(provider: Provider, kills: Iterable[Deletion]) -> Outcomes:
    """Delete in batches, parents before children, by what they were asked before."""
    wanted = list(kills)
    done: Outcomes = {}
    while wanted:
        first = wanted[0]
        alike = [k for k in wanted if k.force == first.force and k.ref.kind == first.ref.kind]
        refs = [deletion.ref for deletion in alike[:DELETE_BATCH]]
        sent = set(refs)
        wanted = [deletion for deletion in wanted if deletion.ref not in sent]
        outcomes = delete_each(provider, refs, force=first.force)
        done |= {ref: LineOutcome.of(outcome) for ref, outcome in outcomes.items()}
    return done
