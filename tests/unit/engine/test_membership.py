from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

from tests.support.ledger_builds import spec
from tests.support.pools import POOL
from vmrunner.core.lifecycle import FORGOTTEN
from vmrunner.engine.membership import MEMBER_LEASE, Membership
from vmrunner.ledger.transfer_types import Member
from vmrunner.model import BuildRecord, BuildState, Pool, Process

HERE = Process(machine="m", boot="b", pid_namespace="n", pid=1, started=1)


def member(name: str, seen_at: float = 0.0, pid: int = 1) -> Member:
    process_id = replace(HERE, pid=pid)
    return Member(id=name, process=process_id, kind="serve", joined_at=0, seen_at=seen_at)


def membership(lives: bool | None) -> Membership:
    return Membership(one_host=True, alive=lambda _p, one_host: lives)


def watch(them: Membership, members: list[Member], start: float, seconds: float) -> None:
    at = start
    while at <= start + seconds:
        them.update(members, at)
        at += 5


def test_who_can_be_seen_is_believed_at_once() -> None:
    alive, dead = membership(True), membership(False)
    for them in (alive, dead):
        them.update([member("e")], 0)
    assert not alive.member_gone("e")
    assert dead.member_gone("e")
    watch(alive, [member("e")], 0, 10 * MEMBER_LEASE)
    assert not alive.member_gone("e")  # it lives, however silent
    assert alive.member_gone("never-there")
    assert alive.member_gone(None)


def test_the_unseen_are_gone_after_a_lease_we_watched() -> None:
    them = membership(None)
    watch(them, [member("e", seen_at=-1e9)], 0, MEMBER_LEASE - 10)
    assert not them.member_gone("e")  # its beat is old, but we did not watch so long
    watch(them, [member("e", seen_at=-1e9)], MEMBER_LEASE - 5, 10)
    assert them.member_gone("e")
    them.update([member("e", seen_at=5)], MEMBER_LEASE + 10)
    assert not them.member_gone("e")


def test_a_beat_from_a_wrong_clock_is_a_beat() -> None:
    them = membership(None)
    for n in range(100):
        them.update([member("e", seen_at=1e6 - n)], n * 5.0)
        assert not them.member_gone("e")


def test_our_own_pause_starts_the_counting_anew() -> None:
    them = membership(None)
    watch(them, [member("e")], 0, MEMBER_LEASE - 10)
    them.update([member("e")], 10_000)
    assert not them.member_gone("e")
    watch(them, [member("e")], 10_005, MEMBER_LEASE)
    assert them.member_gone("e")


def test_a_submitter_elsewhere_lives_while_it_beats() -> None:
    them = membership(None)
    assert them.process_lives(None) is None
    watch(them, [], 0, 0)
    assert them.process_lives(HERE) is None
    watch(them, [], 5, MEMBER_LEASE)
    assert them.process_lives(HERE) is False
    beating = membership(None)
    for n in range(50):
        beating.update([member("e", seen_at=n)], n * 5.0)
    assert beating.process_lives(HERE) is True


def test_two_threads_look_one_after_the_other() -> None:
    """A sweep and a pass over the ledger share it."""
    them = membership(True)
    them.update([member("e")], 0)
    other = threading.Thread(target=them.update, args=([], 1))
    waited: list[bool] = []

    def slowly() -> Iterator[Member]:
        other.start()
        other.join(0.3)
        waited.append(other.is_alive())
        yield member("e")

    them.update(slowly(), 1)
    other.join()
    assert waited == [True]
    assert them.member_gone("e")


def test_a_pool_is_forgotten_by_nobodys_clock() -> None:
    """Whoever names it may have a clock that is wrong by however much."""
    them, named = membership(None), Pool(spec=POOL, shape="", revision=1, named_at=-1e9)
    for n in range(100):
        them.update([], n * 60.0)
        named = replace(named, named_at=named.named_at + 60.0)
        assert not them.pool_forgotten(named)
    last = 99 * 60.0
    for seconds in range(0, int(FORGOTTEN), 30):
        them.update([], last + seconds)
        assert not them.pool_forgotten(named)
    them.update([], last + FORGOTTEN)
    assert them.pool_forgotten(named)


def test_a_wish_is_as_old_as_we_saw_it() -> None:
    """By whatever clock it was written."""
    them = membership(None)
    build = BuildRecord(
        id="b-1", spec=spec(), state=BuildState.RUNNING, created_at=0.0, state_since=0.0,
        cancelled_at=1e9,
    )  # fmt: skip
    for second in range(0, 121, 10):
        them.update([], float(second))
        assert them.cancelled_for(build) == second
    them.update([], 130.0)
    assert them.cancelled_for(replace(build, cancelled_at=1e9 + 5)) == 0.0
