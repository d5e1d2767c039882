"""Caches in the ledger, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.caches import RULE, save
from vmrunner.ledger import Ledger, caches
from vmrunner.model import CacheRule, CacheScope, ObjectKind, StoredObject

MINE = CacheScope(tenant="a", own="mine", others=("main",))


def found(ledger: Ledger, scope: CacheScope, rule: CacheRule = RULE, now: float = 5.0) -> str:
    entry = ledger.caches.find(scope, rule, now)
    return entry.object if entry else ""


def test_a_build_finds_its_tenants_and_its_scopes_alone(ledger: Ledger) -> None:
    for tenant, scope in (("b", "mine"), ("a", "other"), ("b", "main")):
        assert save(ledger, f"{tenant}-{scope}", CacheScope(tenant=tenant, own=scope))
    assert found(ledger, MINE) == ""
    assert save(ledger, "a-main", CacheScope(tenant="a", own="main"))
    assert found(ledger, MINE) == "a-main"
    assert save(ledger, "a-mine", MINE)
    assert found(ledger, MINE) == "a-mine"
    assert found(ledger, MINE, CacheRule(key="k", path="/other")) == ""
    letters = CacheRule(key="new", path="/cache", fallback=("%", "_"))  # of a pattern elsewhere
    assert found(ledger, MINE, letters) == ""
    assert found(ledger, CacheScope(tenant="a", own="main")) == "a-main"


def test_the_own_scopes_fallback_comes_before_anothers_key(ledger: Ledger) -> None:
    save(ledger, "main", CacheScope(tenant="a", own="main"))
    save(ledger, "old", MINE, CacheRule(key="k-1", path="/cache"), now=1.0)
    save(ledger, "new", MINE, CacheRule(key="k-2", path="/cache"), now=2.0)
    assert found(ledger, MINE) == "new"


def test_a_key_that_is_saved_again_lets_the_first_go(ledger: Ledger) -> None:
    save(ledger, "first", MINE)
    save(ledger, "second", MINE)
    assert found(ledger, MINE) == "second"
    used = {stored.name: referenced for stored, referenced in ledger.objects.page("")}
    assert used == {"first": False, "second": True}


def test_many_that_save_one_key_at_once_all_do(ledger: Ledger) -> None:
    def saves(number: int) -> list[bool]:
        return [save(ledger, f"{number}-{again}", MINE) for again in range(8)]

    with ThreadPoolExecutor(8) as pool:
        assert all(map(all, pool.map(saves, range(8))))
    assert len(ledger.caches.list()) == 1


def test_use_decides_what_makes_room(ledger: Ledger) -> None:
    rules = [CacheRule(key=key, path="/cache") for key in "abc"]
    for number, rule in enumerate(rules[:2]):
        save(ledger, rule.key, MINE, rule, now=float(number), size=40)
    found(ledger, MINE, rules[0], now=9.0)
    save(ledger, "c", MINE, rules[2], now=10.0, size=40)
    assert [cache.key for cache in ledger.caches.list("a")] == ["c", "a"]
    assert ledger.caches.forget_unused(9.5, dry_run=True) == (1, 40)
    assert ledger.caches.forget_unused(9.5) == (1, 40)
    assert [cache.key for cache in ledger.caches.list()] == ["c"]


def test_a_tenant_has_so_many_at_most(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "MOST_CACHES", 2)
    for number, key in enumerate("abc"):
        save(ledger, key, MINE, CacheRule(key=key, path="/cache"), now=float(number))
    assert [cache.key for cache in ledger.caches.list("a", limit=9)] == ["c", "b"]


def test_all_tenants_together_have_so_much_at_most(ledger: Ledger) -> None:
    """Each branch may be a tenant, whose name a pusher makes up."""
    for number, tenant in enumerate("abc"):
        scope = CacheScope(tenant=tenant, own="")
        save(ledger, tenant, scope, now=float(number), size=40, total=100)
    assert [cache.tenant for cache in ledger.caches.list()] == ["c", "b"]
    assert ledger.caches.let_go(None) == ledger.caches.let_go("a") == 40
    assert ledger.caches.let_go("b") == 0


def test_an_upload_that_took_too_long_is_nobodys(ledger: Ledger) -> None:
    stored = StoredObject(name="o", kind=ObjectKind.CACHE, digest="d", size=1, created_at=1.0)
    ledger.objects.begin(stored)
    assert ledger.objects.mark_deleting("o", unreferenced_before=2.0)
    assert not ledger.caches.save(stored, RULE, scope=MINE, build="b-1", now=3.0, most=9)
    assert ledger.caches.list() == []


def test_one_that_is_damaged_is_forgotten_by_its_object(ledger: Ledger) -> None:
    save(ledger, "o", MINE)
    ledger.caches.forget_object("o")
    assert found(ledger, MINE) == ""
