"""News of a scale set from the Actions service, as values. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from vmrunner.integrations.github.errors import GithubAway

_JOBS: Final = "RunnerScaleSetJobMessages"


class BrokenMessage(GithubAway):
    """A message that cannot be read. `id`: its number, if that can."""

    def __init__(self, number: int | None, why: str) -> None:
        super().__init__(f"the Actions service sent what is no message: {why}")
        self.id = number


@dataclass(frozen=True, slots=True)
class JobCounts:
    """Numbers of jobs. `assigned` counts those that run too."""

    assigned: int = 0
    running: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class JobMessage:
    """News of jobs. It comes again until it is acknowledged. `counts`: None where it has none."""

    id: int
    counts: JobCounts | None
    available: tuple[int, ...] = ()  # requests of jobs that may be acquired
    started: tuple[str, ...] = ()  # names of runners
    completed: Mapping[str, str] | None = None  # results by runners' names


@dataclass(frozen=True, slots=True)
class MessageSession:
    """The right to hear a scale set's messages, which one at a time has. `counts`: None where none
    were told with it."""

    id: str
    queue: str
    token: str
    counts: JobCounts | None


@dataclass(frozen=True, slots=True)
class ScaleSet:
    """A scale set, as the service has it."""

    id: int
    name: str
    labels: frozenset[str]


def counts(document: Mapping[str, Any] | None) -> JobCounts | None:
    """Return the counts in a document's statistics. None: it has none, which does not mean that
    there are no jobs."""
    if document is None or document.get("totalAssignedJobs") is None:
        return None
    running = document.get("totalRunningJobs") or 0
    return JobCounts(assigned=int(document["totalAssignedJobs"]), running=int(running))


def scale_set(document: Mapping[str, Any]) -> ScaleSet:
    """Return a scale set of its document."""
    labels = document.get("labels") or ()
    names = frozenset(str(label["name"]) for label in labels)
    return ScaleSet(int(document["id"]), str(document["name"]), names)


def session(document: Mapping[str, Any]) -> MessageSession:
    """Return a session of its document."""
    return MessageSession(
        id=str(document["sessionId"]),
        queue=str(document["messageQueueUrl"]),
        token=str(document["messageQueueAccessToken"]),
        counts=counts(document.get("statistics")),
    )


def message(document: Mapping[str, Any]) -> JobMessage:
    """Return a message of its document. Kinds of news that we do not know are left out; a message
    of another kind is no news of jobs. Raises BrokenMessage for what is none."""
    number = None
    try:
        number = int(document["messageId"])
        body = document.get("body") or "[]"
        events = json.loads(body) if document.get("messageType") == _JOBS else []
        return JobMessage(
            id=number,
            counts=counts(document.get("statistics")),
            available=tuple(int(event["runnerRequestId"]) for event in _of(events, "JobAvailable")),
            started=tuple(str(event.get("runnerName")) for event in _of(events, "JobStarted")),
            completed={
                str(event.get("runnerName")): str(event.get("result", ""))
                for event in _of(events, "JobCompleted")
            },
        )
    except (
        ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
    ) as error:  # fmt: skip
        raise BrokenMessage(number, f"{error!r:.200}") from None


def _of(events: Any, kind: str) -> list[Mapping[str, Any]]:
    return [event for event in events if event.get("messageType") == kind]
