"""The reaper: its passes over all providers, side by side, and its memory between them.

Every provider fails for itself alone, and one that takes long keeps no other waiting. A pass that
takes longer than its round goes on and is not begun twice; a later round reports what it found.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from vmrunner.core.lifecycle import cancelled
from vmrunner.core.reap_plan import Deletion
from vmrunner.engine.completion import BuildCompletion
from vmrunner.engine.context import WorkContext, log
from vmrunner.engine.membership import Membership
from vmrunner.errors import Throttled
from vmrunner.lib import ids
from vmrunner.lib.threads import WorkerPool
from vmrunner.model import InstanceState, Key, Reason, Scope
from vmrunner.providers import Provider
from vmrunner.providers.deletion import delete_until_dead
from vmrunner.providers.retired_providers import parts
from vmrunner.reaper import image_kills
from vmrunner.reaper.kills import kill
from vmrunner.reaper.ledger_calls import AsksLedger, at_once
from vmrunner.reaper.pending_kills import PendingKills
from vmrunner.reaper.reap_pass import ProviderMemory, ReaperParts, ReapPass, close_dead, within
from vmrunner.reaper.report import NOTHING, Report, line_of

#: Seconds after which a pass counts as lost, and another is begun beside it.
LOST: Final = 600.0

#: What a pass over one provider is.
PASS, SWEEP, OVERDUE, LOOK = "pass", "sweep", "overdue", "look"


class Reaper:
    """One reaper. `watching` returns for how long, in seconds, this process has watched without a
    break: no silence before that counts. `ask` puts its questions to the ledger."""

    def __init__(
        self,
        context: WorkContext,
        membership: Membership,
        watching: Callable[[], float],
        ask: AsksLedger = at_once,
    ) -> None:
        self._context = context
        self._membership = membership
        self._completion = BuildCompletion(context)
        self._parts = ReaperParts(
            context, membership, watching, ask, self._completion, context.ledger.open_rows()
        )
        self._rounds = ConcurrentPasses(context.reap_threads, context.monotonic)
        self._pending: dict[str, PendingKills] = {}  # by provider
        self._memory: dict[str, ProviderMemory] = {}  # by driver

    def run(
        self,
        *,
        sweep: bool = True,
        dry_run: bool = False,
        only: Collection[str] | None = None,
        orphans: bool = False,
        seconds: float = LOST,
    ) -> Report:
        """One pass over every provider (of `only`), side by side: the ledger, or the cloud too with
        `sweep`. A sweep that has a hole is made again beside a pass, since what the ledger condemns
        waits for no listing, and at once where an unlisted scope answers again. `orphans`:
        those that the cap holds back too. What takes longer than `seconds` goes on, and a later
        pass reports it."""
        until = self._context.monotonic() + seconds
        drivers = [(n, p, self._memory_of(n, p)) for n, p in self._drivers(only)]

        def passes(what: str) -> dict[tuple[str, str], Callable[[], Report]]:
            return {
                (name, what): partial(
                    self._guarded, name, ReapPass(
                        self._parts, memory, name, provider,
                        sweep=what == SWEEP, dry_run=dry_run, orphans=orphans,
                    ),
                )
                for name, provider, memory in drivers
                if sweep or what == PASS or self._is_due_again(name, memory)
            }  # fmt: skip

        if sweep:
            report = self._rounds.run(passes(SWEEP), seconds)
        else:
            self._rounds.begin({
                (name, LOOK): partial(self._look_at_unlisted, provider, memory)
                for name, provider, memory in drivers
                if memory.retry is not None and memory.retry.unlisted and not dry_run
            })  # fmt: skip
            begun = passes(PASS) | passes(SWEEP)
            report = self._rounds.run(begun, seconds)
            again = {key: work for key, work in passes(SWEEP).items() if key not in begun}
            report += self._rounds.run(again, max(0.0, until - self._context.monotonic()))
        return replace(report, unread=tuple(dict.fromkeys(report.unread)))

    def kill_overdue(
        self, only: Collection[str] | None = None, *, late: float, seconds: float = LOST
    ) -> Report:
        """Kill what is known to have been past its deadline for `late` seconds, without a question
        to the ledger: so late, the pass that should have done it waits for that. Rows are left to
        the pass that reads them again."""
        passes: dict[tuple[str, str], Callable[[], Report]] = {}
        for name, provider in self._drivers(only):
            due = self._pending_at(provider.name).overdue(provider.now(), late)
            kills = [k for k in within(provider, due) if not image_kills.is_image(k)]
            if kills:
                passes[name, OVERDUE] = partial(self._kill_known, provider, kills)
        return self._rounds.run(passes, seconds)

    def has_survivors(self) -> bool:
        """True if something is known that should be dead, or will have to be, and was not seen
        dead."""
        return any(
            self._pending_at(provider.name).has_survivors(provider.now())
            for _, provider in self._drivers(None)
        )

    def end_abandoned(self) -> int:
        """End the queued builds whose submitter is gone: they have no VM, and need no engine.
        Returns their number."""
        ended = 0
        for build in self._context.ledger.builds.queued():
            if self._membership.process_lives(build.submitter) is False:
                with self._context.guard("owner gone", build.id):
                    self._completion.finish(build, cancelled(Reason.OWNER_GONE))
                    ended += 1
        return ended

    def close_dying(self, seconds: float, *, only: str | None = None) -> None:
        """Wait at most `seconds` for the death of what dies without an owner; close what is seen
        dead."""
        until = self._context.monotonic() + seconds
        for row in self._context.ledger.instances.open():
            provider = self._context.provider_of(row)
            wanted = only in (None, row.provider) and row.state is InstanceState.DELETING
            if provider is None or not wanted or not self._membership.member_gone(row.owner):
                continue
            remaining = until - self._context.monotonic()
            vms = {row.key: row.ref}
            if delete_until_dead(provider, vms, ask=False, seconds=remaining, pause=0.25).dead:
                close_dead(self._context, provider, row)

    def _drivers(self, only: Collection[str] | None) -> list[tuple[str, Provider]]:
        """The drivers of these providers, the former ones of a name too."""
        chosen = [i for i in self._context.providers.items() if only is None or i[0] in only]
        return [part for item in chosen for part in parts(*item).items()]

    # --- one provider ---

    def _kill_known(self, provider: Provider, kills: list[Deletion]) -> Report:
        try:
            done = kill(provider, kills)
        except Exception as error:  # noqa: BLE001 - one provider never stops the others
            log.exception("reaping %s", provider.name)
            return Report(unread=(f"{provider.name}: {type(error).__name__}: {error}",))
        self._pending_at(provider.name).answered(done)
        now = provider.now()
        lines = [line_of(provider.name, now, k, None, done.get(k.ref, NOTHING)) for k in kills]
        return Report(lines=tuple(lines))

    def _look_at_unlisted(self, provider: Provider, memory: ProviderMemory) -> Report:
        """Have the cloud listed at once where a scope answers again whose VMs the last sweep could
        not list: what has no row may be past its deadline there. Beside all passes, since a scope
        may keep its answer back."""
        retry = memory.retry
        if retry is not None:
            silent = frozenset(s for s in retry.unlisted if not answers(provider, s))
            if memory.retry is retry:  # else a sweep came to its end meanwhile
                when = self._context.monotonic() if retry.silent - silent else retry.when
                memory.retry = replace(retry, when=when, silent=silent)
        return Report()

    def _is_due_again(self, name: str, memory: ProviderMemory) -> bool:
        retry = memory.retry
        due = retry is not None and self._context.monotonic() >= retry.when
        return due and not self._rounds.busy(name, SWEEP)

    def _pending_at(self, name: str) -> PendingKills:
        return self._pending.setdefault(name, PendingKills())

    def _memory_of(self, name: str, provider: Provider) -> ProviderMemory:
        return self._memory.setdefault(name, ProviderMemory(self._pending_at(provider.name)))

    def _guarded(self, name: str, one_pass: ReapPass) -> Report:
        try:
            return one_pass.run()
        except Exception as error:  # noqa: BLE001 - one provider never stops the others
            log.exception("reaping %s", name)
            return Report(unread=(f"{name}: {type(error).__name__}: {error}",), blind=(name,))


def answers(provider: Provider, scope: Scope) -> bool:
    """True if a look at this scope has an answer, which is that there is no such VM."""
    try:
        provider.look([Key(scope, ids.instance_id())])
    except Exception:  # noqa: BLE001 - what a silent scope raises is told by its sweep
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Running:
    report: Future[Report]
    began: float  # monotonic


class ConcurrentPasses:
    """The rounds of one reaper. `pool` gives what runs the passes over one provider; its threads
    must not be numbered, since a lost pass may keep one for ever."""

    def __init__(self, pool: Callable[[str], WorkerPool], now: Callable[[], float]) -> None:
        self._pool = pool
        self._now = now
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], _Running] = {}  # by provider, and what it is

    def busy(self, provider: str, what: str) -> bool:
        """True if such a pass is under way, so that it would not be begun."""
        running = self._running.get((provider, what))
        lost = running is not None and self._now() - running.began > LOST
        return running is not None and not running.report.done() and not lost

    def begin(self, passes: Mapping[tuple[str, str], Callable[[], Report]]) -> None:
        """Begin them, but for those that go on from before, and wait for none."""
        with self._lock:
            for key, work in passes.items():
                self._begin(key, work)

    def run(self, passes: Mapping[tuple[str, str], Callable[[], Report]], seconds: float) -> Report:
        """Begin them all, but for those that go on from before; wait at most `seconds`. What is not
        over then is reported as not read."""
        with self._lock:
            former = [self._begin(key, work) for key, work in passes.items()]
            awaited = [self._running[key].report for key in passes]
        wait(awaited, timeout=seconds)
        with self._lock:
            return sum([*former, *map(self._take, passes)], Report())

    def _begin(self, key: tuple[str, str], work: Callable[[], Report]) -> Report:
        """Begin a pass, and return the former one's report, where it was not taken yet."""
        if self.busy(*key):
            return Report()
        former = self._take(key) if key in self._running else Report()
        if former.ongoing:  # it keeps its thread: one each `LOST` at most
            log.error("%s: its %s hangs: another is begun beside it", *key)
        self._running[key] = _Running(self._pool(key[0]).submit(work), self._now())
        return former

    def _take(self, key: tuple[str, str]) -> Report:
        running = self._running.get(key)
        if running is None:  # another round took it
            return Report()
        if running.report.done():
            del self._running[key]
            error = running.report.exception()
            if isinstance(error, Throttled):  # no thread: the others go on
                return Report(unread=(f"{key[0]}: its {key[1]} was not begun: {error}",))
            return running.report.result()
        seconds = int(self._now() - running.began)
        text = f"{key[0]}: its {key[1]} goes on: since {seconds} s"
        return Report(unread=(text,), ongoing=(key[0],))
