"""Tokens, tenants and submitter leases in the ledger."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text

from tests.support.ledger_builds import launch, ref, spec, submitted
from vmrunner.errors import Conflict, NotFound
from vmrunner.ledger import Ledger
from vmrunner.model import (
    BuildChoice,
    BuildState,
    InstanceState,
    Principal,
    Reason,
    Result,
    TokenQuota,
    TokenScope,
)

READ = frozenset({TokenScope.READ})


def test_a_token_is_shown_once_and_lies_there_hashed(ledger: Ledger) -> None:
    quota = TokenQuota(builds=3, providers=("aws",))
    secret, token = ledger.tokens.create(
        "ci", READ, by="me", now=1.0, labels={"team": "a"}, quota=quota, expires_at=9.0
    )
    assert secret.startswith("vmr_")
    assert len(secret) > 40
    found = ledger.tokens.of_secret(secret)
    assert found == token == ledger.tokens.find("ci") == ledger.tokens.find(token.id)
    assert (token.labels, token.quota, token.scopes) == ({"team": "a"}, quota, READ)
    assert token.actor == f"token:{token.id}"
    assert ledger.tokens.of_secret(secret + "x") is None

    def all_that_lies_there(connection: object) -> str:
        return str(connection.execute(text("SELECT * FROM tokens")).all())  # type: ignore[attr-defined]

    assert secret not in ledger._database.read(all_that_lies_there)


def test_a_revoked_or_expired_token_is_over(ledger: Ledger) -> None:
    _, token = ledger.tokens.create("ci", READ, by="me", now=1.0, expires_at=9.0)
    assert token.valid(8.9)
    assert not token.valid(9.0)
    assert ledger.tokens.revoke(token.id, 5.0)
    assert not ledger.tokens.revoke(token.id, 6.0)
    assert not ledger.tokens.find("ci").valid(5.5)
    with pytest.raises(NotFound, match="no token 'other'"):
        ledger.tokens.find("other")


def test_a_name_finds_the_token_that_is_not_revoked(ledger: Ledger) -> None:
    _, first = ledger.tokens.create("ci", READ, by="me", now=1.0)
    ledger.tokens.revoke(first.id, 2.0)
    _, second = ledger.tokens.create("ci", READ, by="me", now=3.0)
    assert ledger.tokens.find("ci") == second


def test_a_browser_is_known_by_its_cookie_until_then(ledger: Ledger) -> None:
    _, token = ledger.tokens.create("me", READ, by="me", now=1.0)
    cookie = ledger.tokens.log_in(token, 10.0, 20.0)
    found = ledger.tokens.login(cookie, 19.9)
    assert found is not None
    assert found[0] == token
    assert len(found[1]) > 40
    assert ledger.tokens.login(cookie, 20.0) is None
    assert ledger.tokens.login("other", 11.0) is None
    ledger.tokens.log_out(cookie)
    assert ledger.tokens.login(cookie, 11.0) is None


def test_only_tokens_of_an_exchange_are_forgotten(ledger: Ledger) -> None:
    for name in ("", "ci"):
        ledger.tokens.create(name, READ, by="oidc", now=1.0, expires_at=2.0)
    ledger.tokens.forget(3.0)
    assert [token.name for token in ledger.tokens.list()] == ["ci"]


def test_one_key_is_a_build_of_each_tenant(ledger: Ledger) -> None:
    wanted = spec(idempotency_key="k")
    first, _ = ledger.builds.submit(wanted, id="b-1", now=1.0)
    other, new = ledger.builds.submit(wanted, id="b-2", now=2.0, tenant="a", actor="token:t-1")
    assert new
    assert (other.tenant, other.actor) == ("a", "token:t-1")
    assert ledger.builds.same(wanted) == first
    assert ledger.builds.same(wanted, "a") == other
    assert ledger.builds.submit(wanted, id="b-3", now=3.0, tenant="a") == (other, False)
    with pytest.raises(Conflict):
        ledger.builds.submit(replace(wanted, timeout=9.0), id="b-4", now=4.0, tenant="a")


def test_a_label_filter_hides_the_builds_of_others(ledger: Ledger) -> None:
    ledger.builds.submit(spec(labels={"team": "a"}, name="nightly"), id="b-01a", now=1.0)
    ledger.builds.submit(spec(labels={"team": "b"}, name="nightly"), id="b-01b", now=2.0)
    find = ledger.builds.find
    for word in ("b-01a", "01a", "b-01", "nightly"):
        assert find(word, {"team": "a"}).id == "b-01a"
    for word in ("b-01b", "01b"):
        with pytest.raises(NotFound):
            find(word, {"team": "a"})


def test_a_page_of_builds_goes_on_after_the_last(ledger: Ledger) -> None:
    for n in range(5):
        submitted(ledger, f"b-{n}")
    first = ledger.builds.list(limit=2)
    rest = ledger.builds.chosen(BuildChoice(before=first[-1].id))
    assert [build.id for build in [*first, *rest]] == ["b-4", "b-3", "b-2", "b-1", "b-0"]


def test_a_lease_is_of_a_build_that_nobody_ended(ledger: Ledger) -> None:
    leases = ledger.submitter_leases
    ledger.builds.submit(spec(), id="b-1", now=0.0, lease_until=60.0)
    submitted(ledger, "b-2")
    assert leases.open() == {"b-1": 60.0}
    leases.renew("b-1", 100.0)
    assert leases.open() == {"b-1": 100.0}
    ledger.builds.request_cancel("b-1", Reason.OWNER_GONE, 140.0)
    assert leases.open() == {}
    with pytest.raises(NotFound, match="no lease to renew"):
        leases.renew("b-2", 100.0)


def test_a_held_build_outlives_its_client(ledger: Ledger) -> None:
    """To enter it one has until its hold is over, not as long as a lease lasts."""
    ledger.builds.submit(spec(), id="b-1", now=0.0, lease_until=60.0)
    assert ledger.instances.start([launch(ledger, "b-1", "vm-1")], until=200.0)
    assert ledger.instances.record([("vm-1", 1, ref("i-1"))], 1.0) == {"vm-1"}
    advance = ledger.builds.advance
    advance("b-1", epoch=1, to=BuildState.CONNECTING, now=2.0)
    advance("b-1", epoch=1, to=BuildState.PREPARING, now=3.0, instance_to=InstanceState.READY)
    advance("b-1", epoch=1, to=BuildState.RUNNING, now=4.0, instance_to=InstanceState.BUSY)
    assert ledger.submitter_leases.open() == {"b-1": 60.0}
    ledger.builds.hold(
        "b-1", hold_until=90.0, epoch=1, now=5.0, result=Result.FAILURE, reason=Reason.EXIT_CODE
    )
    assert ledger.submitter_leases.open() == {}


@pytest.mark.parametrize(
    ("tenant", "labels", "seen"),
    [
        ('{"env": "ci", "team": "a"}', {"team": "a", "env": "ci", "more": "1"}, True),
        ('{"env": "ci", "team": "a", "x": "y"}', {"team": "a", "env": "ci", "x": "y"}, True),
        ("local", {"team": "a", "env": "ci"}, True),
        ("unfiltered", {"team": "a", "env": "ci"}, True),
        ("local", {"team": "a"}, False),
        ('{"team": "a"}', {"team": "a", "env": "ci"}, False),
        ('{"repository": "r"}', {"team": "a", "env": "ci", "repository": "r"}, False),
    ],
)
def test_a_principal_sees_what_its_tenant_submitted(
    ledger: Ledger, tenant: str, labels: dict[str, str], seen: bool
) -> None:
    principal = Principal(actor="x", scopes=READ, labels={"team": "a", "env": "ci"})
    build = submitted(ledger, "b-1", tenant=tenant, labels=labels)
    assert principal.sees(build) is seen
    assert Principal(actor="x", scopes=READ).sees(build)
    assert principal.tenant == replace(principal, labels={"env": "ci", "team": "a"}).tenant
