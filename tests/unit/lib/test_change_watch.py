"""How long a value has not changed, whatever clocks say."""

from __future__ import annotations

import pytest

from vmrunner.lib.change_watch import ChangeWatch


def looks(every: float, seconds: float = 3600.0) -> float | None:
    """Return after how long a value that never changes is silent, of a lease of 60 s."""
    watch: ChangeWatch[str] = ChangeWatch(60.0)
    now = 1000.0
    while now < 1000.0 + seconds:
        watch.look("e", 5.0, now)
        if watch.silent("e"):
            return now - 1000.0
        now += every
    return None


@pytest.mark.parametrize(
    ("every", "after"), [(5.0, 60.0), (20.0, 60.0), (29.9, 89.7), (30.01, 90.03), (59.0, 177.0)]
)
def test_it_is_found_however_rarely_we_look(every: float, after: float) -> None:
    found = looks(every)
    assert found is not None
    assert found == pytest.approx(after)


def test_a_value_that_changes_is_never_silent() -> None:
    watch: ChangeWatch[str] = ChangeWatch(60.0)
    for n in range(100):  # backwards, too: a clock that is set
        assert watch.look("e", 1e6 - n, n * 50.0) == 0.0
        assert not watch.silent("e")


def test_a_long_pause_of_ours_counts_for_nothing() -> None:
    watch: ChangeWatch[str] = ChangeWatch(60.0)
    watch.look("e", 1.0, 0.0)
    assert watch.look("e", 1.0, 50.0) == 20.0
    assert watch.look("e", 1.0, 111.0) == 0.0
    assert watch.look("e", 1.0, 116.0) == 5.0


def test_what_nobody_looks_at_is_forgotten() -> None:
    watch: ChangeWatch[str] = ChangeWatch(60.0)
    for name in ("a", "b"):
        watch.look(name, 1.0, 0.0)
    watch.look("a", 1.0, 60.0)
    watch.tidy(61.0)
    assert list(watch._watched) == ["a"]
    watch.keep([])
    assert not watch.silent("a")
