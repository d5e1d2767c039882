"""What drivers of clouds share: clocks, buckets, pools, batches, pages."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrunner.errors import BadOrder, CredentialsRefused, NoCapacity, Throttled, Uncertain
from vmrunner.lib.token_bucket import Limit
from vmrunner.model import Fate, Kind, Market, Outcome, Page, Power, Ref, Resource, Scope
from vmrunner.providers.common.batches import in_batches
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.capacity_pools import CapacityPool, DryPools, markets, walk
from vmrunner.providers.common.clock import CloudClock
from vmrunner.providers.common.paging import pages
from vmrunner.providers.common.rate_limits import Buckets, Quota

SCOPE = Scope("ec2", "123456789012", "eu-west-1")


class Time:
    """Seconds that pass when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


# --- the clock -----------------------------------------------------------------------------------


def test_the_hosts_clock_holds_until_the_cloud_has_spoken(time: Time) -> None:
    clock = CloudClock(host=lambda: 3590.0, elapsed=time)
    assert (clock.now(), clock.skew) == (3590.0, None)
    clock.observe("Thu, 01 Jan 1970 01:00:00 GMT")
    time.now += 10
    assert clock.now() == 3610.0
    assert clock.skew == 3590.0 - 3610.0
    for nonsense in (None, "", "yesterday", "Thu, 99 Jan 1970 00:00:00 GMT"):
        clock.observe(nonsense)
        assert clock.now() == 3610.0


def test_a_date_in_seconds_never_sets_the_clock_back(time: Time) -> None:
    clock = CloudClock(host=lambda: 0.0, elapsed=time)
    for tenths in range(100):
        time.now = 1000.0 + tenths / 10
        before = clock.now() if tenths else 0.0
        clock.observe(f"Thu, 01 Jan 1970 00:00:{int(time.now) - 1000:02d} GMT")
        assert clock.now() >= before
        assert 0 <= time.now - 1000.0 - clock.now() < 1


def at(seconds: float) -> str:
    return formatdate(seconds, usegmt=True)


DAY = 86_400.0
NOW = 1_800_000_000.0


def test_one_wrong_date_says_nothing(time: Time) -> None:
    clock = CloudClock(host=lambda: NOW, elapsed=time)
    clock.observe(at(NOW))
    for wrong in (NOW + DAY, NOW - DAY, NOW + 3 * DAY):
        clock.observe(at(wrong))
        assert clock.now() == NOW
        clock.observe(at(NOW))  # who contradicts it wins
    clock.observe(at(NOW + DAY))
    clock.observe(at(NOW + 2 * DAY))  # two that are wrong, and not alike
    assert clock.now() == NOW


def test_an_error_moves_no_deadline_and_is_told_by_doctor(time: Time) -> None:
    clock = CloudClock(host=lambda: NOW, elapsed=time)
    for _ in range(2):
        clock.overheard(at(NOW - DAY))
        assert (clock.now(), clock.skew) == (NOW, DAY)


def test_a_jump_is_believed_when_a_second_answer_agrees(time: Time) -> None:
    clock = CloudClock(host=lambda: NOW, elapsed=time)
    clock.observe(at(NOW))
    for then in (NOW + DAY, NOW - DAY, NOW + 3600):
        clock.observe(at(then))
        time.now += 5
        clock.observe(at(then + 5))
        assert clock.now() == then + 5
    clock.observe(at(clock.now() + 50))  # no jump: at once
    assert clock.now() == NOW + 3655


def test_a_jump_is_believed_when_the_hosts_clock_agrees(time: Time) -> None:
    """`elapsed` missed the time that a suspended VM slept; the host's clock was set right."""
    host = [NOW]
    clock = CloudClock(host=lambda: host[0], elapsed=time)
    clock.observe(at(NOW))
    host[0] += DAY
    clock.observe(at(NOW + DAY - 30))
    assert clock.now() == NOW + DAY - 30


@pytest.mark.parametrize("wrong", [DAY, -DAY])
@pytest.mark.parametrize("whose", ["host", "cloud"])
def test_of_two_that_disagree_the_earlier_counts_until_a_third(
    time: Time, wrong: float, whose: str
) -> None:
    clock = CloudClock(host=lambda: NOW + (wrong if whose == "host" else 0), elapsed=time)
    clock.observe(at(NOW + (wrong if whose == "cloud" else 0)))
    assert clock.now() == min(NOW, NOW + wrong)
    clock.observe(at(NOW))
    if whose == "cloud":  # the host and an answer agree
        assert clock.now() == NOW
    clock.observe(at(NOW))
    assert clock.now() == NOW


# --- buckets -------------------------------------------------------------------------------------


def buckets(time: Time, calls: Limit, items: Limit | None = None) -> Buckets:
    return Buckets({"run": Quota(calls, items)}, now=time, sleep=time.sleep)


def test_a_burst_then_the_rate(time: Time) -> None:
    limits = buckets(time, Limit(5, 2))
    for _ in range(5):
        limits.take("here", "run")
    assert time.slept == []
    for _ in range(4):
        limits.take("here", "run")
    assert sum(time.slept) == pytest.approx(2.0)
    limits.take("elsewhere", "run")  # another region has buckets of its own
    assert sum(time.slept) == pytest.approx(2.0)


def test_items_count_too_and_many_need_a_full_bucket(time: Time) -> None:
    limits = buckets(time, Limit(100, 100), Limit(1000, 20))
    limits.take("here", "run", items=1000)
    limits.take("here", "run", items=100)
    assert sum(time.slept) == pytest.approx(5.0)
    limits.take("here", "run", items=5000, patience=100)
    assert sum(time.slept) == pytest.approx(55.0)


def test_who_has_no_patience_takes_nothing(time: Time) -> None:
    limits = buckets(time, Limit(1, 0.1))
    limits.take("here", "run")
    for _ in range(3):
        with pytest.raises(CallFailed, match="at its limit"):
            limits.take("here", "run", patience=5)
    limits.take("here", "run", patience=10)
    assert time.slept == [pytest.approx(10.0)]


def test_a_refusal_empties_the_bucket_and_repetition_doubles_the_pause(time: Time) -> None:
    limits = buckets(time, Limit(100, 10))
    pauses = []
    for _ in range(6):
        limits.take("here", "run")
        limits.record("here", "run", refused=True)
        before = len(time.slept)
        limits.take("here", "run")
        pauses.append(sum(time.slept[before:]))
    assert pauses == [pytest.approx(seconds) for seconds in (1, 2, 4, 8, 16, 16)]
    limits.record("here", "run", refused=False)
    limits.record("here", "run", refused=True)
    limits.take("here", "run")
    assert time.slept[-1] == pytest.approx(1.0, abs=0.2)


def test_of_many_places_each_call_counts(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while more buckets are in use than are kept."""
    monkeypatch.setattr("vmrunner.providers.common.rate_limits.KEPT_BUCKETS", 2)
    limits = buckets(time, Limit(2, 0.1))
    for place in ("a", "b", "c", "d"):
        limits.take(place, "run")
        assert limits.spare(place, "run") == 1
    time.sleep(10)
    limits.take("a", "run")  # what is full is dropped, and nothing else
    assert (limits.spare("a", "run"), limits.spare("b", "run")) == (1, 2)


def test_to_ask_what_is_spare_keeps_nothing(time: Time) -> None:
    limits = buckets(time, Limit(5, 1), Limit(3, 1))
    assert limits.spare("a", "run") == 3
    assert limits._buckets == {}


def test_many_threads_share_one_rate() -> None:
    time = Time()
    lock, slept = threading.Lock(), []

    def sleep(seconds: float) -> None:
        with lock:
            slept.append(seconds)

    limits = Buckets({"run": Quota(Limit(5, 2))}, now=time, sleep=sleep)
    threads = [threading.Thread(target=limits.take, args=("here", "run")) for _ in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Nobody has slept in this world, so each waits for its own turn in the row.
    assert sorted(slept) == [pytest.approx((n + 1) / 2) for n in range(20)]


# --- pools ---------------------------------------------------------------------------------------


def test_types_and_places_are_walked_in_order_and_spot_first() -> None:
    spot = markets("prefer", wanted=False, name="aws")
    pools = walk(spot, "ab", "xy")
    walked = [f"{pool.market.value}-{pool.machine_type}{pool.place}" for pool in pools]
    each = ["ax", "ay", "bx", "by"]
    assert walked == [f"spot-{pool}" for pool in each] + [f"on-demand-{pool}" for pool in each]


@pytest.mark.parametrize(
    ("market", "wanted", "then"),
    [
        (None, False, (Market.ON_DEMAND,)),
        (None, True, (Market.SPOT, Market.ON_DEMAND)),
        ("never", False, (Market.ON_DEMAND,)),
        ("prefer", False, (Market.SPOT, Market.ON_DEMAND)),
        ("only", False, (Market.SPOT,)),
        ("only", True, (Market.SPOT,)),
    ],
)
def test_which_markets(market, wanted, then) -> None:
    assert markets(market, wanted=wanted, name="aws") == then


def test_a_wish_that_the_configuration_forbids() -> None:
    with pytest.raises(BadOrder, match="aws never uses it"):
        markets("never", wanted=True, name="aws")


def test_a_dry_pool_is_left_out_for_a_while(time: Time) -> None:
    dry = DryPools(time)
    pools = [CapacityPool(kind, "x", Market.ON_DEMAND) for kind in ("a", "b")]
    dry.mark(pools[0], "InsufficientInstanceCapacity", 120)
    assert dry.without_dry(pools) == pools[1:]
    dry.mark(pools[1], "VcpuLimitExceeded", 60)
    with pytest.raises(NoCapacity, match=r"all 2 pools .* VcpuLimitExceeded .*in 60 s"):
        dry.without_dry(pools)
    time.now += 60
    assert dry.without_dry(pools) == pools[1:]
    dry.clear(pools[0])
    assert dry.without_dry(pools) == pools
    assert dry.without_dry([]) == []


# --- batches -------------------------------------------------------------------------------------


class Cloud:
    """Deletes a whole batch or nothing of it."""

    def __init__(self, bad: set[int], *, tells: bool, deny: bool = False) -> None:
        self.bad = bad
        self.tells = tells
        self.deny = deny
        self.calls: list[list[int]] = []
        self.gone: list[int] = []

    def delete(self, batch: Sequence[int]) -> None:
        self.calls.append(list(batch))
        bad = sorted(self.bad & set(batch))
        if self.deny:
            raise CallFailed("Throttled", Throttled("not now"))
        if bad:
            names = f"<{bad[0]}>" if self.tells else "one of them"
            raise CallFailed("NotFound", BadOrder(f"{names} is bad"))
        self.gone += batch

    def run(self, items: Sequence[int], size: int) -> dict[int, Outcome]:
        return in_batches(
            items,
            size,
            self.delete,
            poisoned=lambda failed: failed.code == "NotFound",
            names=lambda failed, item: f"<{item}>" in str(failed),
            alone=lambda item, failed: Outcome(fate=Fate.FAILED, error=str(failed)),
        )


@given(
    count=st.integers(0, 60),
    size=st.integers(1, 25),
    bad=st.sets(st.integers(0, 59)),
    tells=st.booleans(),
)
def test_bad_items_never_block_good_ones(count: int, size: int, bad: set[int], tells: bool) -> None:
    cloud = Cloud(bad, tells=tells)
    outcomes = cloud.run(range(count), size)
    good = [item for item in range(count) if item not in bad]
    assert sorted(cloud.gone) == good
    assert len(cloud.gone) == len(set(cloud.gone))
    assert {item for item, outcome in outcomes.items() if outcome.fate is Fate.ACCEPTED} == set(
        good
    )
    assert set(outcomes) == set(range(count))
    assert all(len(call) <= size for call in cloud.calls)


def test_a_refusal_naming_the_bad_one_costs_two_calls() -> None:
    cloud = Cloud({41}, tells=True)
    cloud.run(range(100), 100)
    assert [len(call) for call in cloud.calls] == [100, 99, 1]


def test_a_refusal_of_the_whole_is_not_looked_into() -> None:
    cloud = Cloud(set(), tells=False, deny=True)
    outcomes = cloud.run(range(10), 5)
    assert [len(call) for call in cloud.calls] == [5, 5]
    assert {outcome.fate for outcome in outcomes.values()} == {Fate.FAILED}


# --- pages ---------------------------------------------------------------------------------------


def listed(*parts: list[int] | Exception) -> tuple[list[Page], list[str | None]]:
    """The pages of a listing that fares like this, and the tokens that were asked with."""
    remaining, tokens = list(parts), []

    def read(token: str | None) -> tuple[Sequence[int], str | None]:
        tokens.append(token)
        part = remaining.pop(0)
        if isinstance(part, Exception):
            raise part
        return part, f"t{len(tokens)}" if remaining else None

    def understand(item: int) -> Resource | None:
        if item < 0:
            raise KeyError("State")
        if item == 0:
            return None
        return Resource(ref=Ref(SCOPE, Kind.DISK, f"vol-{item}"), power=Power.RUNNING)

    return list(pages(SCOPE, Kind.DISK, read, understand, lambda: 7.0)), tokens


def ids(found: list[Page]) -> list[list[str]]:
    return [[r.ref.id for r in page.resources] for page in found]


def test_every_page_is_read() -> None:
    found, tokens = listed([1, 2], [3, 0], [])
    assert ids(found) == [["vol-1", "vol-2"], ["vol-3"], []]
    assert [page.more for page in found] == [True, True, False]
    assert tokens == [None, "t1", "t2"]
    assert {page.time for page in found} == {7.0}


def test_a_failed_page_is_asked_again_then_listing_is_incomplete() -> None:
    lost = CallFailed("", Uncertain("no answer"))
    found, tokens = listed([1], lost, [2])
    assert (ids(found), tokens) == ([["vol-1"], ["vol-2"]], [None, "t1", "t1"])
    found, _ = listed([1], lost, lost, [2])
    assert [page.error for page in found] == [None, "no answer"]
    denied = CallFailed("AccessDenied", CredentialsRefused("no"))
    found, tokens = listed(denied)
    assert ([page.error for page in found], tokens) == (["no"], [None])


def test_a_senseless_item_takes_no_other_with_it() -> None:
    found, _ = listed([1, -1, 2], [3])
    assert ids(found) == [["vol-1", "vol-2"], ["vol-3"]]
    assert [page.error is None for page in found] == [False, True]
