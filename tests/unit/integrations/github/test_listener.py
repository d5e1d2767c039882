"""A listener whose GitHub answers what it should not, again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import fake_github
from tests.support.fake_github import Answer, FakeGithub
from vmrunner.config import forges
from vmrunner.config.forges import ScaleSetSettings
from vmrunner.errors import VmrunnerError
from vmrunner.integrations.github import listener
from vmrunner.integrations.github.errors import GithubAway
from vmrunner.integrations.github.http import GithubHttp
from vmrunner.integrations.github.identity import PersonalToken, ServiceTokens
from vmrunner.integrations.github.listener import JobListener
from vmrunner.integrations.github.serve import ServedSet
from vmrunner.integrations.github.service import ActionsService
from vmrunner.integrations.github.state import ScaleSetState
from vmrunner.providers.fake import Clock

PLACE = forges.target(fake_github.ORG)
HOUR = 3600.0
BROKEN = {
    "messageId": 1,
    "messageType": "RunnerScaleSetJobMessages",
    "body": '[{"messageType": "JobAvailable"}]',
    "statistics": {"totalAssignedJobs": 1},
}


class Stop(threading.Event):
    """Waits take virtual time; it is set when that is over."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self._clock = clock
        self._until = clock() + seconds

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.advance(timeout or 0.0)
        if self._clock() >= self._until:
            self.set()
        return self.is_set()


class Place:
    def __init__(self) -> None:
        self.clock = Clock()
        self.github = FakeGithub(self.clock)
        http = GithubHttp(now=self.clock, transport=self.github.transport())
        tokens = ServiceTokens(http, PLACE, PersonalToken(fake_github.TOKEN))
        self.service = ActionsService(http, tokens)
        self.state = ScaleSetState()
        settings = ScaleSetSettings.model_validate({"name": "fast"})
        self.listener = JobListener(settings, self.state, self.service, "me", self.clock)

    def listen(self, seconds: float) -> None:
        scaler: Any = None  # it does not run
        served = ServedSet("fast", self.state, self.listener, scaler, self.clock)
        served.listen(Stop(self.clock, seconds))


def _no_token_will_do(github: FakeGithub) -> None:
    github._of_session = lambda bearer: Answer(401)  # type: ignore[method-assign]


def _sets_without_sessions(github: FakeGithub) -> None:
    github._open = lambda *_: Answer(404)  # type: ignore[method-assign]


def _polls_that_do_not_wait(github: FakeGithub) -> None:
    assert not github.messages


def _one_message_for_ever(github: FakeGithub) -> None:
    message = {"messageId": 1, "messageType": "other"}
    github._message = lambda *_: Answer(200, message)  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "trouble",
    [_no_token_will_do, _sets_without_sessions, _polls_that_do_not_wait, _one_message_for_ever],
)
def test_what_brings_no_news_is_not_asked_in_a_rush(trouble: Callable[[FakeGithub], None]) -> None:
    place = Place()
    trouble(place.github)
    place.listen(HOUR)
    most = listener.VAIN.burst + HOUR * listener.VAIN.rate
    assert most / 2 < len(place.github.requests) <= 2 * most + 10


def test_news_are_heard_as_fast_as_they_come() -> None:
    place = Place()
    place.listener.step()
    place.github.queue_jobs(500)
    began = place.clock()
    place.listen(1.0)
    assert not place.github.messages
    assert place.clock() - began < 10


def test_a_message_that_cannot_be_read_keeps_none_behind_it() -> None:
    place = Place()
    place.listener.step()
    (scale_set,) = place.github.sets
    place.github.messages.append({"set": scale_set, **BROKEN})
    place.github._ids = iter(range(2, 1000))  # type: ignore[assignment]
    job = place.github.queue_job()
    place.listen(120.0)
    assert job.state == "assigned"
    assert (
        len([request for request in place.github.paths("/queue/") if request.method == "GET"]) > 5
    )


def test_another_scale_set_is_not_taken_for_ours() -> None:
    """Whoever answers heeds no filter."""
    place = Place()
    others = [{"id": n, "name": f"set-{n}", "labels": []} for n in range(3)]
    listed = {"count": 3, "value": others}
    place.github._find_set = lambda *_: Answer(200, listed)  # type: ignore[method-assign]
    place.github._groups = lambda *_: Answer(200, listed)  # type: ignore[method-assign]
    assert place.service.find("default", "fast") is None
    found = place.service.find("SET-2", "Set-1")
    assert found is not None
    assert found.id == 1
    with pytest.raises(VmrunnerError, match="no runner group 'big'"):
        place.service.find("big", "fast")


ODD_RUNNER = {"runner": {"id": 1}, "encodedJITConfig": "\ud800"}


@pytest.mark.parametrize(
    "body", [None, [], {"value": None}, {"value": [5]}, {"value": [{}]}, "x", ODD_RUNNER]
)
def test_an_answer_that_is_none_is_a_failure_of_githubs(body: Any) -> None:
    place = Place()
    for path, ask in (
        ("runnerscalesets", lambda: place.service.find("default", "fast")),
        ("runnergroups", lambda: place.service.find("big", "fast")),
        ("runnerscalesets", lambda: place.service.create("default", "fast", ["fast"])),
        ("sessions", lambda: place.service.open_session(1, "me")),
        ("generatejitconfig", lambda: place.service.make_runner(1, "fast-1")),
        ("agents", lambda: place.service.find_runner("fast-1")),
    ):
        place.github.next(path, Answer(200, body))
        with pytest.raises(GithubAway):
            ask()
