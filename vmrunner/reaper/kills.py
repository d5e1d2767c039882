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
FORCED_TRIES: Final = 2  # in one pass, of what is past its deadline


def kill(provider: Provider, kills: Iterable[Deletion]) -> Outcomes:
    """Delete what is condemned. What is past its deadline waits for no next pass: where it refuses
    it is deleted with force at once, and once more where that fails too."""
    wanted, now = list(kills), provider.now()
    done = _ask(provider, wanted)
    overdue = [replace(k, force=True) for k in wanted if now > (k.expires_at or now)]
    for _ in range(FORCED_TRIES):
        refused = [k for k in overdue if done[k.ref].fate is LineFate.FAILED]
        if not refused:
            break
        done |= _ask(provider, refused)
    return done


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
