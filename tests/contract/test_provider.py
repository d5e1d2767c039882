"""What every provider must do: one suite, every driver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.drivers import (
    GENERATION,
    INSTALLATION,
    Driver,
    LeavesImages,
    driven,
    make_order,
)
from vmrunner.errors import BadOrder, ConfigError, ProviderError, Refused
from vmrunner.lib import ids
from vmrunner.model import (
    Fate,
    Key,
    Kind,
    Level,
    Offer,
    Order,
    Power,
    Ref,
    Resource,
    Role,
    Seen,
    Spec,
)
from vmrunner.providers import Parks, Provider, StartsUnits, load, registry
from vmrunner.providers.port_images import ImageRequest, KeepsImages

DRIVERS = [
    pytest.param("fake"),
    pytest.param("ec2"),
    pytest.param("gce"),
    pytest.param("azure"),
    pytest.param("vmi"),
    pytest.param("pod"),
    pytest.param("elsewhere"),
    pytest.param("former"),
    pytest.param("nameless"),
    pytest.param("qemu", marks=pytest.mark.vm),
]


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    with driven(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def provider(driver: Driver) -> Provider:
    return driver.open()


def look(provider: Provider, order: Order, ref: Ref | None = None) -> Seen | None:
    key = Key(order.offer.scope, order.instance, ref.id if ref else None)
    return provider.look([key]).get(key)


def names(provider: Provider) -> bool:
    """Does the cloud show which VM one is?"""
    kinds = {scope.kind for scope in provider.scopes}
    return all(registry.drivers()[kind].names for kind in kinds)


def swept(provider: Provider, order: Order, ref: Ref | None) -> list[Resource]:
    """What a sweep shows of a VM, by its name, or where it has none by its reference."""
    shown = [r for page in provider.sweep() for r in page.resources]
    if names(provider):
        return [r for r in shown if r.instance == order.instance]
    return [r for r in shown if ref is not None and ref in (r.ref, r.parent)]


def dead(provider: Provider, order: Order, ref: Ref) -> bool:
    """Seen dead, or seen nowhere: which of them is up to the provider."""
    seen = look(provider, order, ref)
    gone = seen is None or seen.power is Power.DEAD
    return gone and not swept(provider, order, ref)


def test_it_says_who_and_where_it_is(provider: Provider) -> None:
    assert isinstance(provider, Provider)
    assert provider.name
    assert provider.scopes
    assert provider.creates > 0
    kinds = {scope.kind for scope in provider.scopes}
    assert kinds <= registry.drivers().keys()
    if isinstance(provider, StartsUnits):  # what may start units need not, as it is configured
        assert all(registry.drivers()[kind].units for kind in kinds)
    assert all(registry.drivers()[kind].max_ttl > 0 for kind in kinds)
    offers = provider.offers(Spec())
    assert offers
    assert all(isinstance(offer, Offer) and offer.scope in provider.scopes for offer in offers)


def test_check_tells_in_findings(provider: Provider) -> None:
    findings = provider.check()
    assert findings
    assert all(finding.message for finding in findings)
    assert all(finding.fix for finding in findings if finding.level is Level.ERROR)


def test_one_vm_from_birth_to_death(driver: Driver, provider: Provider) -> None:
    """One long test, since a VM is dear: accepted, the same again, seen, swept, killed."""
    order = make_order(provider)
    ref = provider.create(order)
    assert ref.scope == order.offer.scope
    assert ref.kind is Kind.INSTANCE

    # The identical order is the same VM, also from another process.
    assert provider.create(order) == ref
    assert driver.open().create(order) == ref

    # Found by our name before its reference is recorded, where it has one, and by that after.
    if names(provider):
        assert driver.wait(lambda: look(provider, order)).ref == ref
    by_ref = driver.wait(lambda: look(provider, order, ref))
    assert by_ref.ref == ref
    if not names(provider):
        assert look(provider, order) is None, "it may be anybody's"
    running = driver.wait(
        lambda: (s := look(provider, order, ref)) and s.power is Power.RUNNING and s
    )
    assert running.address is not None

    # One call answers for many; what it does not know is missing in it.
    key = Key(order.offer.scope, order.instance, ref.id)
    stranger = Key(order.offer.scope, "vm-00000000000000000000000000")
    elsewhere = Key(driver.stray(order.offer.scope), order.instance)
    assert set(provider.look([stranger, key, elsewhere])) == {key}

    # The sweep shows it with all that a reaper needs, and ends each (scope, kind) it read.
    shown = swept(provider, order, ref)
    (vm,) = [r for r in shown if r.ref.kind is Kind.INSTANCE]
    assert vm.ref == ref
    for resource in shown:
        assert resource.tag("installation") == INSTALLATION
        assert resource.tag("generation") == GENERATION
        assert resource.role is Role.BUILD
        if names(provider):
            assert resource.tag("build") == order.build
            assert resource.expires_at == order.deadline
            assert resource.max_ttl == order.max_ttl
        assert resource.created_at is not None
        assert resource.ref.kind is Kind.INSTANCE or resource.parent == ref
    pages = list(provider.sweep())
    ended = {(page.scope, page.kind) for page in pages if not page.more}
    assert ended == {(s, k) for s in provider.scopes for k in driver.kinds}
    assert all(abs(page.time - provider.now()) < 60 for page in pages)

    assert isinstance(provider.console(ref), str)
    assert len(provider.console(ref)) <= 64 << 10

    # Delete: each for itself, accepted before it is done, and again is no error.
    nobody = ref._replace(id="vm-00000000000000000000000000")
    outcomes = provider.delete([nobody, ref])
    assert outcomes[nobody].fate in (Fate.MISSING, Fate.FAILED)
    assert outcomes[ref].fate is Fate.ACCEPTED
    driver.wait(lambda: dead(provider, order, ref))
    assert provider.delete([ref])[ref].fate is not Fate.FAILED
    assert provider.delete([]) == {}


def test_the_native_deadline_needs_nobody(driver: Driver, provider: Provider) -> None:
    if not driver.native_deadline:
        return
    order = make_order(provider, ttl=driver.shortest)
    ref = provider.create(order)
    driver.wait(lambda: dead(provider, order, ref), seconds=driver.shortest + 30)
    assert provider.now() >= order.deadline


def test_what_is_parked_wakes_and_dies_as_any_other(driver: Driver, provider: Provider) -> None:
    if not isinstance(provider, Parks):
        return
    order = make_order(provider)
    ref = provider.create(order)

    def seen(power: Power) -> Seen | None:
        found = look(provider, order, ref)
        return found if found is not None and found.power is power else None

    running = driver.wait(lambda: seen(Power.RUNNING))
    other = driver.open()
    assert isinstance(other, Parks)
    for caller in (provider, provider, other):
        caller.park(ref)
    off = driver.wait(lambda: seen(Power.STOPPED))
    assert (off.self_ended, off.preempted) == (False, False)
    assert [r.alive for r in swept(provider, order, ref) if r.ref.kind is Kind.INSTANCE] == [True]
    for caller in (provider, provider, other):
        caller.wake(ref)
    awake = driver.wait(lambda: seen(Power.RUNNING))
    assert awake.address is not None
    assert running.created_at == off.created_at == awake.created_at
    stray = ref._replace(scope=driver.stray(ref.scope))
    for verb in (provider.park, provider.wake):
        with pytest.raises(ProviderError):
            verb(stray)
    provider.delete([ref])
    driver.wait(lambda: dead(provider, order, ref))
    for verb in (provider.park, provider.wake):
        with pytest.raises(BadOrder):
            verb(ref)


def image_request(provider: Provider, **more: Any) -> ImageRequest:
    now = float(int(provider.now()))
    values: dict[str, Any] = {
        "image": ids.image_id(),
        "builder": ids.instance_id(),
        "installation": INSTALLATION,
        "generation": GENERATION,
        "recipe": "default",
        "hash": "0123456789abcdef",
        "supervisor": "x",
        "created": now,
        "deadline": now + 600,
        "max_ttl": 14400.0,
    }
    return ImageRequest(**(values | more))


def test_an_image_is_a_leftover_until_it_is_finished(driver: Driver, provider: Provider) -> None:
    assert isinstance(driver, LeavesImages) is (Kind.IMAGE in driver.kinds)
    if not isinstance(driver, LeavesImages):
        return
    assert isinstance(provider, KeepsImages)
    images = provider.imaging()
    leftover, good = image_request(provider), image_request(provider)
    theirs = image_request(provider, installation="00000000-0000-4000-8000-00000000000f")
    for request in (leftover, good, theirs):
        driver.image(request)

    def shown() -> dict[str | None, Resource]:
        pages = (page for page in driver.open().sweep() if page.kind is Kind.IMAGE)
        return {resource.instance: resource for page in pages for resource in page.resources}

    found = driver.wait(lambda: len(resources := shown()) > 1 and resources)
    for request in (leftover, good):
        resource = found[request.builder]
        assert (resource.ref.kind, resource.role) == (Kind.IMAGE, Role.IMAGE)
        assert resource.tag("installation") == INSTALLATION
        assert resource.expires_at == request.finish_by > request.deadline
    whose = found.get(theirs.builder)  # told as another's, or not at all
    assert whose is None or whose.tag("installation") == theirs.installation

    made = driver.wait(lambda: images.find(good.name))
    for _ in range(2):
        images.finish(made)
    driver.wait(lambda: good.builder not in shown())
    # What a sweep showed before: that one was finished since, the driver looks after itself.
    refs = [found[request.builder].ref for request in (good, leftover)]
    outcomes = driver.open().delete(refs)
    assert [outcomes[ref].fate for ref in refs] == [Fate.MISSING, Fate.ACCEPTED]
    driver.wait(lambda: images.find(leftover.name) is None)
    assert driver.open().delete(refs[1:])[refs[1]].fate is Fate.MISSING
    kept = images.find(good.name)
    assert kept is not None
    assert (kept.ref, kept.installation) == (made.ref, INSTALLATION)
    assert images.find(theirs.name) is not None


def test_an_order_for_another_scope_is_refused(driver: Driver, provider: Provider) -> None:
    order = make_order(provider)
    stray = replace(order.offer, scope=driver.stray(order.offer.scope))
    with pytest.raises(Refused):
        provider.create(replace(order, offer=stray))
    assert not swept(provider, order, None)


def test_a_kind_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match="no kind 'ec3'"):
        load("ec3", "aws")
    with pytest.raises(ConfigError, match="not a kind"):
        load("../x", "aws")
    assert load("fake", "toy").name == "toy"
