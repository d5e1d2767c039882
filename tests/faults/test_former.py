"""A name stays while its provider becomes another, of another kind, account or clock: what was
started by the former one is minded as before, by the former one's clock and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.faults.world import World
from vmrunner.core.audit_rules import AuditFault
from vmrunner.errors import CredentialsRefused, LedgerError
from vmrunner.ledger import Ledger
from vmrunner.model import Death, Page, Scope
from vmrunner.providers.fake import FakeProvider
from vmrunner.providers.retired_providers import RetiredProvider
from vmrunner.reaper.expired import delete_expired
from vmrunner.services import audit

HOST = Scope("qemu", "host", "host")
NEVER = 1e9


class Host(FakeProvider):
    """A host, whose clock is hours fast."""

    def now(self) -> float:
        return self.cloud.now() + 3 * 3600.0


class Shut(FakeProvider):
    """Nobody tells whose its credentials are."""

    def sweep(self) -> Iterator[Page]:
        raise CredentialsRefused("expired token")


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    world = make_world()
    world.build_seconds = NEVER
    return world


def started(world: World, **options: bool) -> float:
    """A build that runs, and its provider is another from now on; when its VM must end."""
    build = world.submit()
    node = world.node(**options)
    world.run(60, until=lambda: len(world.started) == 1)
    host = Host("fake", world.cloud, scopes=(HOST,))
    former = RetiredProvider("fake", [FakeProvider("fake", world.cloud)], host)
    node.engine.context.providers = {"fake": former}
    return world.truth.instances.get(world.truth.builds.get(build.id).instance or "").deadline


def alive(world: World) -> int:
    return sum(machine.alive for machine in world.cloud.machines.values())


@pytest.mark.parametrize("reaps", [True, False])
def test_the_deadline_is_by_its_starters_clock(world: World, *, reaps: bool) -> None:
    end = started(world, reaps=reaps)
    world.run(end - 60 - world.clock(), step=5.0)
    assert alive(world) == 1
    world.run(180, step=5.0)
    assert not alive(world)


@pytest.mark.parametrize("ledger", [True, False])
def test_a_present_one_without_rights_saves_no_vm(world: World, *, ledger: bool) -> None:
    """Its sweep raises, as where no account can be told, and nothing but a sweep shows the VM."""
    build = world.submit()
    node = world.node()
    world.run(60, until=lambda: len(world.started) == 1)
    node.kill()
    row = world.truth.instances.get(world.truth.builds.get(build.id).instance or "")
    world.truth.instances.close_all([(row.id, row.epoch, Death.VANISHED)], world.clock())
    shut = Shut("fake", world.cloud, scopes=())
    providers = {"fake": RetiredProvider("fake", [FakeProvider("fake", world.cloud)], shut)}
    world.clock.advance(row.deadline + 120 - world.clock())
    if ledger:
        reaping = world.node(drives=False).reaping
        reaping._context.providers = providers
        unread = reaping.run().unread
    else:
        limits = world.limits.limits
        unread = delete_expired(None, providers, limits, world.truth.installation).unread
    assert not alive(world)
    assert "expired token" in str(unread)


def test_another_engine_s_reaper_tells_it_by_the_same_clock(world: World) -> None:
    end = started(world, reaps=False)
    providers = world.nodes[0].engine.context.providers
    other = world.node(drives=False)
    other.reaping._context.providers = providers
    world.run(end - 60 - world.clock(), step=5.0)
    assert alive(world) == 1


@pytest.mark.parametrize("away", [False, True])
def test_the_audit_tells_it_by_the_same_clock(world: World, *, away: bool) -> None:
    end = started(world, reaps=False)
    opened = world.nodes[0].engine.context.providers
    world.nodes[0].kill()
    providers: Any = SimpleNamespace(opened=lambda: (opened, {}), named=lambda name: name)

    def ledger() -> Ledger:
        if away:
            raise LedgerError("away")
        return world.truth

    def late() -> bool:
        ledgers: Any = SimpleNamespace(open=ledger, installation=world.truth.installation)
        found = audit.audit(ledgers, providers, world.limits.limits)
        return AuditFault.PAST_DEADLINE in [line.fault for line in found]

    world.clock.advance(end - 60 - world.clock())
    assert not late()
    world.clock.advance(world.limits.limits.grace + 120)
    assert late()


def test_what_needs_no_ledger_tells_it_by_the_same_clock(world: World) -> None:
    end = started(world, reaps=False)
    node = world.nodes[0]
    providers, limits = node.engine.context.providers, world.limits.limits
    node.kill()

    def late() -> int:
        return len(delete_expired(None, providers, limits, world.truth.installation).lines)

    assert (late(), alive(world)) == (0, 1)
    world.clock.advance(end + 120 - world.clock())
    assert (late(), alive(world)) == (1, 0)
