"""What a listener tells a scaler, which may look at any time."""

from __future__ import annotations

from vmrunner.integrations.github.messages import JobCounts, JobMessage
from vmrunner.integrations.github.plan import STALE
from vmrunner.integrations.github.state import ScaleSetState


def test_a_count_and_the_runners_of_it_change_at_once() -> None:
    """A job that is over must not look like one without a runner."""
    state = ScaleSetState()
    state.counted(JobCounts(assigned=1), 1.0)
    before = state.jobs
    state.heard(JobMessage(id=1, counts=JobCounts(), completed={"r-1": "succeeded"}), 2.0)
    assert before.news is not None
    assert (before.news.assigned, before.completed) == (1, frozenset())
    assert state.jobs.news is not None
    assert (state.jobs.news.assigned, state.jobs.completed) == (0, {"r-1"})


def test_a_count_is_sure_when_nothing_followed_it() -> None:
    state = ScaleSetState()
    state.heard(JobMessage(id=1, counts=JobCounts(assigned=2), started=("r-1", "r-2")), 10.0)
    news = state.jobs.news
    assert news is not None
    assert [news.settled(at) for at in (10.0, 10.9, 11.0)] == [False, False, True]
    state.confirmed(10.5)
    assert state.jobs.news is not None
    assert state.jobs.news.settled(10.5)
    assert not state.jobs.news.settled(10.5 + STALE)
    state.keep({"r-2"})
    assert state.jobs.started == {"r-2"}


def test_counts_do_not_outlive_a_clock_set_back() -> None:
    """An hour back, GitHub silent since: the count would hold for an hour and five minutes."""
    state = ScaleSetState()
    state.counted(JobCounts(assigned=2), 7200.0)
    assert state.jobs.news is not None
    assert not state.jobs.news.settled(3600.0 + STALE)
    state.confirmed(3600.0 + STALE)
    assert state.jobs.news.settled(3600.0 + STALE), "GitHub said it again"


def test_news_that_never_end_are_acted_upon_all_the_same() -> None:
    """A busy scale set has a message each half second, all day long."""
    state, settled = ScaleSetState(), []
    for half_seconds in range(60):
        now = half_seconds / 2
        state.heard(JobMessage(id=half_seconds, counts=JobCounts(assigned=half_seconds)), now)
        assert state.jobs.news is not None
        settled.append(state.jobs.news.settled(now))
    assert settled == [False] * 20 + [True] * 40
    state.confirmed(30.0)
    state.heard(JobMessage(id=61, counts=JobCounts(assigned=61)), 31.0)
    assert not state.jobs.news.settled(31.0), "what came before is known"


def test_a_message_without_counts_leaves_those_before() -> None:
    """Taken for none it would let go of runners that jobs wait for."""
    state = ScaleSetState()
    state.counted(JobCounts(assigned=2), 1.0)
    state.heard(JobMessage(id=1, counts=None, started=("r-1",)), 2.0)
    assert state.jobs.news is not None
    assert state.jobs.news.assigned == 2
    assert state.jobs.started == {"r-1"}
