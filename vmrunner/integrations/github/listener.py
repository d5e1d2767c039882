"""The messages of a scale set: one session at a time hears them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from vmrunner.errors import VmrunnerError
from vmrunner.integrations.github.errors import GithubAway, GithubError
from vmrunner.integrations.github.messages import (
    BrokenMessage,
    JobMessage,
    MessageSession,
    ScaleSet,
)
from vmrunner.integrations.github.service import ActionsService
from vmrunner.integrations.github.state import ScaleSetState
from vmrunner.lib import jitter
from vmrunner.lib.backoff import backoff
from vmrunner.lib.token_bucket import Limit

if TYPE_CHECKING:
    from vmrunner.config.forges import ScaleSetSettings

log = logging.getLogger("vmrunner.github")

FIRST_PAUSE: Final = 1.0  # seconds after the first failure, until it is tried again
LONGEST_PAUSE: Final = 60.0
REFUSED: Final = 60.0  # … after a refusal, which an operator must mend
HELD: Final = 30.0  # … while another hears the messages
#: Steps that bring nothing new: GitHub lets a poll wait for 50 s, and a session last for long. What
#: stands between may answer at once, for ever.
VAIN: Final = Limit(burst=30, rate=0.2)
MESSAGE_TRIES: Final = 5  # with a message that cannot be read
_UNAUTHORISED, _GONE, _CONFLICT = 401, 404, 409


class JobListener:
    """Hears the messages of one scale set. `step` is called again and again."""

    def __init__(
        self,
        settings: ScaleSetSettings,
        state: ScaleSetState,
        service: ActionsService,
        owner: str,
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._state = state
        self._service = service
        self._owner = owner
        self._now = now
        self._session: MessageSession | None = None
        self._last = 0  # the message that was acknowledged last
        self._broken: int | None = None  # the message that could not be read, …
        self._tries = 0  # … so often

    def step(self) -> bool:
        """One thing more: find the scale set, open the session, or wait for a message and deal with
        it. True if it was one that we had not heard. Raises GithubError."""
        scale_set = self._state.jobs.scale_set
        if scale_set is None:
            self._session = None
            self._state.found(self._found())
        elif self._session is None:
            self._open(scale_set)
        else:
            return self._receive(scale_set, self._session)
        return False

    def close(self) -> None:
        """Let another hear the messages. What was not acknowledged comes to it."""
        scale_set, session = self._state.jobs.scale_set, self._session
        self._session = None
        if scale_set is not None and session is not None:
            self._service.close_session(scale_set.id, session)

    def _found(self) -> ScaleSet:
        """Return the scale set, made or relabelled where it is not as it is configured."""
        settings = self._settings
        labels = frozenset(settings.labels or [settings.name])
        found = self._service.find(settings.runner_group, settings.name)
        if found is None:
            found = self._service.create(settings.runner_group, settings.name, labels)
            log.info("%s: made scale set %d", settings.name, found.id)
        elif found.labels != labels:
            found = self._service.relabel(found, labels)
            log.info("%s: scale set %d has labels %s", settings.name, found.id, ", ".join(labels))
        return found

    def _open(self, scale_set: ScaleSet) -> None:
        try:
            self._session = self._service.open_session(scale_set.id, self._owner)
        except GithubError as error:
            if error.status == _GONE:
                self._state.lost()
                return
            if error.status == _CONFLICT:
                self._state.unheard()
            raise
        self._last = 0
        if (counts := self._session.counts) is not None:
            self._state.counted(counts, self._now())
        jobs = "an unknown number of" if counts is None else counts.assigned
        log.info("%s: listening; %s jobs", scale_set.name, jobs)

    def _receive(self, scale_set: ScaleSet, session: MessageSession) -> bool:
        try:
            message = self._service.next_message(session, self._last, self._settings.max_runners)
            if message is None:
                self._state.confirmed(self._now())
                return False
            last = self._last
            self._deal_with(scale_set, session, message)
        except BrokenMessage as error:
            self._let_go(scale_set, session, error)
        except GithubError as error:
            if error.status == _UNAUTHORISED:
                self._renew(scale_set, session)
            elif error.status == _GONE:
                self._session = None
            else:
                raise
        else:
            return message.id > last
        return False

    def _let_go(self, scale_set: ScaleSet, session: MessageSession, error: BrokenMessage) -> None:
        """Ask anew for a message that cannot be read, some times: all that follow wait behind it.
        What it told of jobs the counts of those will tell too."""
        self._tries = self._tries + 1 if error.id == self._broken else 1
        self._broken = error.id
        if error.id is None or self._tries < MESSAGE_TRIES:
            raise error
        log.error("%s: message %d is let go: %s", scale_set.name, error.id, error)
        self._service.acknowledge(session, error.id)
        self._last = error.id

    def _deal_with(self, scale_set: ScaleSet, session: MessageSession, message: JobMessage) -> None:
        """Acknowledged last: what a crash leaves undone comes again."""
        self._state.heard(message, self._now())
        if message.available:
            self._acquire(scale_set, session, message.available)
        self._service.acknowledge(session, message.id)
        self._last = message.id

    def _acquire(self, scale_set: ScaleSet, session: MessageSession, offers: Sequence[int]) -> None:
        """Take jobs that are offered. An offer that is refused is let go: it would come again for
        ever, and all that follows would wait behind it."""
        try:
            self._service.acquire(scale_set.id, session, offers)
        except GithubAway:
            raise
        except GithubError as error:
            if error.status in (_UNAUTHORISED, _GONE):
                raise
            if len(offers) > 1:
                for offer in offers:
                    self._acquire(scale_set, session, (offer,))
            else:
                log.warning("%s: a job that was offered is refused: %s", scale_set.name, error)

    def _renew(self, scale_set: ScaleSet, session: MessageSession) -> None:
        """Another token for the session; another session, where that is over."""
        try:
            self._session = self._service.renew_session(scale_set.id, session)
        except GithubAway:
            raise
        except GithubError as error:
            log.info("%s: its session is over: %s", scale_set.name, error)
            self._session = None


def pause_after(error: VmrunnerError, failures: int, spread: Callable[[], float]) -> float:
    """Return the seconds until it is tried again, after so many failures in a row. `spread` is
    between 0 and 1: those who failed together do not come back together."""
    if isinstance(error, GithubAway):
        wait = backoff(FIRST_PAUSE, failures - 1, LONGEST_PAUSE) * (0.5 + spread())
        return max(wait, error.wait or 0.0)
    if isinstance(error, GithubError) and error.status == _CONFLICT:
        return HELD
    return REFUSED


def explanation(error: VmrunnerError, name: str) -> str:
    """The log line of a failure."""
    if isinstance(error, GithubError) and error.status == _CONFLICT:
        return (
            f"{name}: another process hears this scale set: it is tried again until that one ends, "
            "or GitHub has not heard it for a while"
        )
    return f"{name}: {error}"


def spread() -> float:
    return jitter.between(0, 1)
