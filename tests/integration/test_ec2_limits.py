"""The EC2 driver at the local endpoint: the cloud's time, the account's rate, and credentials that
point elsewhere."""

from __future__ import annotations

import pytest

from tests.support.ec2 import Amazon, fleet, make_order, swept
from tests.support.ec2 import virtual_aws as virtual_aws  # the fixture
from vmrunner.model import Fate, Key, Kind


def test_the_clouds_time_is_what_counts(aws: Amazon) -> None:
    provider = aws.provider()
    aws.cloud.skew = -86_400
    order = make_order(provider)
    assert abs(provider.now() - (aws.clock() - 86_400)) < 5
    provider.create(order)
    (vm,) = swept(provider, lambda page: page.kind is Kind.INSTANCE)
    assert vm.created_at == aws.clock() - 86_400


def test_a_burst_goes_at_the_accounts_rate_without_a_refusal(aws: Amazon) -> None:
    provider = aws.provider()
    orders = [make_order(provider) for _ in range(25)]
    began = aws.clock()
    for order in orders:
        provider.create(order)
    assert aws.clock() - began == pytest.approx(10, abs=0.5)  # 5 at once, then 2 a second
    assert len(aws.cloud.alive) == 25


def test_a_profile_that_points_elsewhere_concludes_nothing(
    aws: Amazon, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, (ref,) = fleet(aws, 1)
    assert [s.account for s in provider.scopes] == [aws.cloud.account]
    other = "AKIAOTHEROTHEROTHER0"
    aws.cloud.accounts[other] = "210987654321"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", other)
    fresh = aws.provider()
    assert [s.account for s in fresh.scopes] == ["210987654321"]
    assert fresh.look([Key(ref.scope, "vm-x", ref.id)]) == {}
    assert {page.scope.account for page in fresh.sweep()} == {"210987654321"}
    assert fresh.delete([ref])[ref].fate is Fate.FAILED
    assert len(aws.cloud.alive) == 1


def test_a_profile_changed_during_a_sweep_makes_it_incomplete(aws: Amazon) -> None:
    provider, (_,) = fleet(aws, 1)
    other = "AKIAOTHEROTHEROTHER0"
    aws.cloud.accounts[other] = "210987654321"
    pages = provider.sweep()
    assert next(pages).error is None
    provider.client._session.get_credentials().access_key = other
    errors = [page.error for page in pages]
    assert errors
    assert set(errors) == {"the credentials are another account's now"}
