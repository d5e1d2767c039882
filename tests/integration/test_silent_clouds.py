"""A cloud that accepts calls and never answers: what is elsewhere goes on, on one node and on two.

Each wait here is for something that happens while every call to that cloud still hangs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.test_daemon import Paths, Session, Shop, shop, ticking, until
from tests.support.ledger_builds import orders
from vmrunner.engine import engine as engine_module
from vmrunner.engine.context import EngineLimits
from vmrunner.engine.engine import Engine
from vmrunner.lib import process
from vmrunner.model import BuildRecord, BuildState, Reason, Scope
from vmrunner.providers.fake import Cloud, FakeProvider

__all__ = ["shop"]

DEAD = Scope("fake", "account", "zone-dead")


class SilentProvider(FakeProvider):
    """A driver whose calls hang once `silent` is set, until the test ends."""

    def __init__(self, cloud: Cloud) -> None:
        self.silent, self.over = threading.Event(), threading.Event()
        self.hanging: set[str] = set()
        super().__init__("dead", cloud, scopes=(DEAD,))
        self.guarded_roles = lambda: self._hang("guarded_roles", lambda: frozenset({"pool"}))

    def _hang(self, method: str, answer: Callable[[], Any]) -> Any:
        if self.silent.is_set():
            self.hanging.add(method)
            self.over.wait(120)
        return answer()

    @property
    def scopes(self) -> Any:
        return self._hang("scopes", lambda: frozenset({DEAD}))

    def offers(self, spec: Any) -> Any:
        return self._hang("offers", lambda: super(SilentProvider, self).offers(spec))

    def create(self, order: Any) -> Any:
        return self._hang("create", lambda: super(SilentProvider, self).create(order))

    def look(self, ids: Any) -> Any:
        return self._hang("look", lambda: super(SilentProvider, self).look(ids))

    def delete(self, refs: Any, *, force: bool = False) -> Any:
        return self._hang("delete", lambda: super(SilentProvider, self).delete(refs, force=force))


@pytest.fixture
def dead(shop: Shop) -> Iterator[SilentProvider]:
    provider = SilentProvider(shop.cloud)
    yield provider
    provider.over.set()


def engine_of(shop: Shop, *providers: FakeProvider) -> Engine:
    return Engine(
        shop.ledger,
        {provider.name: provider for provider in (FakeProvider("fake", shop.cloud), *providers)},
        Session,
        EngineLimits(),
        process=process.current(),
        kind="serve",
        paths=Paths(shop.root, shop.root, shop.root / "wake"),
        orders=orders(shop.ledger),
    )


def in_state(shop: Shop, build: BuildRecord, *states: BuildState) -> Callable[[], bool]:
    return lambda: shop.ledger.builds.get(build.id).state in states


def cancel(shop: Shop, build: BuildRecord, engines: list[Engine]) -> None:
    shop.ledger.builds.request_cancel(build.id, Reason.USER, time.time())
    for engine in engines:
        engine.wake()
    until(in_state(shop, build, BuildState.FINISHED), "its end")


@pytest.mark.parametrize("nodes", [1, 2])
def test_cancels_ends_and_leases_go_on_beside_it(
    shop: Shop, dead: SilentProvider, nodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "HEARTBEAT", 0.0)
    engines = [engine_of(shop, dead) for _ in range(nodes)]
    with contextlib.ExitStack() as stack:
        for engine in engines:
            stack.enter_context(ticking(engine))
        here = shop.submit()
        waiting = shop.submit(provider="dead")
        for build in (here, waiting):
            until(in_state(shop, build, BuildState.RUNNING), "its steps")
        dead.silent.set()
        for cpus in (1, 2, 3):
            shop.submit(provider="dead", cpus=cpus, queue_timeout=3600.0)
        until(lambda: {"scopes", "offers"} <= dead.hanging, "calls that hang")
        beats = {engine.id: engine.seen_at for engine in shop.ledger.engines.list()}
        cancel(shop, here, engines)
        late = shop.submit()  # stopped sessions let all others go on to their ends
        until(in_state(shop, late, BuildState.FINISHED), "a whole build elsewhere")
        until(
            lambda: all(engine.seen_at > beats[engine.id] for engine in shop.ledger.engines.list()),
            "the leases",
        )
        until(in_state(shop, waiting, BuildState.FINISHED), "the end of its own build, too")
        until(lambda: "delete" in dead.hanging, "the delete of its VM")
        assert not dead.over.is_set()
        dead.over.set()


def test_a_cloud_that_is_silent_from_the_start_stops_nothing(
    shop: Shop, dead: SilentProvider
) -> None:
    dead.silent.set()
    engine = engine_of(shop, dead)
    waits = shop.submit(provider="dead", queue_timeout=3600.0)
    with ticking(engine):
        here = shop.submit()
        until(in_state(shop, here, BuildState.RUNNING), "its steps")
        assert "dead did not answer yet" in engine.waiting[waits.id]
        cancel(shop, here, [engine])
        cancel(shop, waits, [engine])
        dead.over.set()
