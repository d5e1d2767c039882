"""Two daemons on one ledger and one cloud, each with its own timers, threads and leases."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from tests.integration.test_daemon import Shop, shop, until
from tests.integration.test_daemon_clock import late, serving, soon, steady
from vmrunner.model import Fate, Kind, Outcome, Page, Ref
from vmrunner.providers.fake import SCOPE, FakeProvider
from vmrunner.reaper.turns import is_reapers
from vmrunner.runtime.daemon import Daemon

__all__ = ["shop", "soon", "steady"]

ELSEWHERE = SCOPE._replace(place="elsewhere")


class Refusable(FakeProvider):
    """A cloud that may refuse this node's credentials."""

    refuses = False

    def sweep(self) -> Iterator[Page]:
        if not self.refuses:
            yield from super().sweep()
            return
        for kind in (Kind.INSTANCE, Kind.DISK):
            yield Page(scope=SCOPE, kind=kind, error="ExpiredToken", time=self.now())

    def delete(self, refs: Sequence[Ref], *, force: bool = False) -> Mapping[Ref, Outcome]:
        if not self.refuses:
            return super().delete(refs, force=force)
        return {ref: Outcome(fate=Fate.FAILED, error="ExpiredToken") for ref in refs}


def a_daemon(shop: Shop, *providers: FakeProvider) -> Daemon:
    engine = shop.engine(listen=False)
    engine.context.providers = {provider.name: provider for provider in providers}
    return Daemon(engine, shop.ledger)


def reapers(shop: Shop) -> dict[str, str]:
    """Who reaps, by provider."""
    held = shop.ledger.engines.holders()
    return {name.split(":")[1]: holder for name, holder in held.items() if is_reapers(name)}


def reaped(shop: Shop) -> None:
    machine = late(shop, -1.0)
    until(lambda: not machine.alive, "the end of what is past its deadline")


def test_who_is_refused_leaves_reaping_to_the_other(steady: Shop) -> None:
    mine, theirs = Refusable("fake", steady.cloud), Refusable("fake", steady.cloud)
    first, second = a_daemon(steady, mine), a_daemon(steady, theirs)
    with serving(first):
        until(lambda: first._ours, "its turn")
        with serving(second):
            until(lambda: second._passes.finished, "a look at who reaps")
            assert not second._ours
            mine.refuses = True
            reaped(steady)
            assert reapers(steady) == {"fake": second._engine.id}
            mine.refuses, theirs.refuses = False, True
            until(lambda: first._ours, "its turn again")
            reaped(steady)


def test_an_heir_reaps_as_soon_as_another_stops(steady: Shop) -> None:
    first = a_daemon(steady, FakeProvider("fake", steady.cloud))
    second = a_daemon(steady, FakeProvider("fake", steady.cloud))
    with contextlib.ExitStack() as stack:
        with serving(first):
            until(lambda: first._ours, "its turn")
            stack.enter_context(serving(second))
        reaped(steady)
        assert reapers(steady) == {"fake": second._engine.id}


def test_each_reaps_what_the_other_has_not(steady: Shop) -> None:
    """Who reaps what both have goes on with that alone."""
    other = FakeProvider("other", steady.cloud, scopes=(ELSEWHERE,))
    first = a_daemon(steady, FakeProvider("fake", steady.cloud))
    second = a_daemon(steady, FakeProvider("fake", steady.cloud), other)
    with serving(first):
        until(lambda: first._ours, "its turn")
        with serving(second):
            until(lambda: second._swept, "a sweep")
            assert reapers(steady) == {"fake": first._engine.id, "other": second._engine.id}
            machine = steady.cloud.plant(ELSEWHERE, late(steady, -1.0).tags)
            until(lambda: not machine.alive, "its end")
            assert set(second._swept) == {"other"}
