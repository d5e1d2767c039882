"""Reads and writes of a ledger, put to a server. Methods are named and answer as those of
`vmrunner.ledger`, so that code that follows, shows or cancels a build need not know which it is."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from vmrunner.model import BuildChoice, BuildEvent, BuildRecord, Chunk, Instance, Reason, Start
from vmrunner.services.client import decoding
from vmrunner.services.client.http_client import HttpClient, segment

_PAGE = 500


class RemoteBuilds:
    """Builds that the token sees. `waiting` and `starts` are what the documents told of the builds
    that were read last."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self.waiting: dict[str, str] = {}
        self.starts: dict[str, Start] = {}

    def find(self, word: str) -> BuildRecord:
        """Find a build by id, the beginning of one, or name. Raises NotFound, Conflict."""
        return self._one(self._client.one(f"/builds/{segment(word)}", brief=True))

    get = find

    def _one(self, document: decoding.Document) -> BuildRecord:
        row = decoding.build(document)
        if why := document.get("waiting"):
            self.waiting[row.id] = why
        if row.instance and document.get("start"):
            self.starts[row.instance] = Start(document["start"])
        return row

    def list(
        self,
        active: bool | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
        *,
        mine: bool = False,
    ) -> list[BuildRecord]:
        """Newest first; `mine`: those that this token's tenant submitted."""
        return self.chosen(BuildChoice(active=active, labels=labels or {}), limit, mine=mine)

    def chosen(
        self, choice: BuildChoice, limit: int | None = None, *, mine: bool = False
    ) -> builtins.list[BuildRecord]:
        """The first of them, newest first, page after page."""
        self.waiting.clear()
        query = _query(choice) | {"mine": mine or None}
        found: list[BuildRecord] = []
        before = choice.before
        while limit is None or len(found) < limit:
            size = _PAGE if limit is None else min(_PAGE, limit - len(found))
            page = self._client.get("/builds", **query, limit=size, after=before)
            found += map(self._one, page["items"])
            before = page.get("next")
            if before is None:
                break
        return found

    def request_cancel(
        self,
        build_id: str,
        reason: Reason,
        now: float,
        *,
        by: str = "",
    ) -> BuildRecord:
        """Cancel it. The server knows by whom, and when."""
        del now, by
        return self._one(
            self._client.post(f"/builds/{segment(build_id)}/cancel", {"reason": reason.value})[
                "items"
            ][0]
        )

    def extend(self, build_id: str, seconds: float, now: float, *, by: str = "") -> BuildRecord:
        """Keep a held build's VM longer. Raises Conflict, NotFound."""
        del now, by
        answer = self._client.post(f"/builds/{segment(build_id)}/extend", {"by": seconds})
        return self._one(answer["items"][0])


def _query(choice: BuildChoice) -> dict[str, Any]:
    """The parameters of `GET /builds`; None: not said."""
    states = [state.value for state in choice.states]
    if choice.active is not None:
        states = ["active" if choice.active else "finished"]
    return {
        "state": states or None,
        "result": [result.value for result in choice.results] or None,
        "name": choice.name,
        "actor": list(choice.actors) or None,
        "provider": choice.provider,
        "since": _rfc3339(choice.since),
        "until": _rfc3339(choice.until),
        "label": [f"{name}={value}" for name, value in choice.labels.items()] or None,
    }


def _rfc3339(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()


class RemoteEvents:
    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def list(self, build: str, after: int = 0) -> list[BuildEvent]:
        """Return the events with a number above `after`, in order."""
        found = self._client.listed(f"/builds/{segment(build)}/events", after=after or None)
        return [decoding.event(event) for event in found]


class RemoteLogs:
    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def read(
        self, build: str, after_line: int = 0, after_seq: int = 0, limit: int = 1000
    ) -> list[Chunk]:
        """Return the next chunks; as many as the server sends at once."""
        del limit
        with self._client.stream(
            f"/builds/{segment(build)}/chunks",
            "application/octet-stream",
            after_line=after_line or None,
            after_seq=after_seq or None,
        ) as parts:
            return list(decoding.chunks(parts))


class RemoteLog:
    """The log of one build."""

    def __init__(self, logs: RemoteLogs, build: str) -> None:
        self._logs = logs
        self._build = build

    def read(self, after_line: int = 0, after_seq: int = 0) -> list[Chunk]:
        """Return the next chunks; none when there are none yet."""
        return self._logs.read(self._build, after_line=after_line, after_seq=after_seq)


class RemoteInstances:
    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def find(self, word: str) -> Instance:
        """Find a VM by id, or the beginning of one. Raises NotFound."""
        return decoding.instance(self._client.one(f"/instances/{segment(word)}"))

    get = find

    def list(
        self, build: str | None = None, active: bool | None = None, limit: int | None = None
    ) -> list[Instance]:
        """Newest first."""
        state = None if active is None else "active" if active else "gone"
        found: list[Instance] = []
        after: str | None = None
        while limit is None or len(found) < limit:
            size = _PAGE if limit is None else min(_PAGE, limit - len(found))
            page = self._client.get("/instances", build=build, state=state, limit=size, after=after)
            found += map(decoding.instance, page["items"])
            after = page.get("next")
            if after is None:
                break
        return found


class RemoteLedger:
    """The ledger of a server, as far as a client may ask it."""

    def __init__(self, client: HttpClient) -> None:
        self.builds = RemoteBuilds(client)
        self.events = RemoteEvents(client)
        self.logs = RemoteLogs(client)
        self.instances = RemoteInstances(client)
