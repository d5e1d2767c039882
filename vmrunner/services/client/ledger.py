"""The questions and wishes of a ledger, put to a server. Methods are named and answer as those of
`vmrunner.ledger`, so that code that follows, shows or cancels a build need not know which it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from vmrunner.model import BuildEvent, BuildRecord, BuildState, Chunk, Instance, Reason, Start
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
        states: Collection[BuildState] = (),
        before: str | None = None,
        mine: bool = False,
    ) -> list[BuildRecord]:
        """Newest first, page after page; `mine`: those that this token's tenant submitted."""
        self.waiting.clear()
        wanted = [state.value for state in states]
        if active is not None:
            wanted = ["active" if active else "finished"]
        found: list[BuildRecord] = []
        while limit is None or len(found) < limit:
            size = _PAGE if limit is None else min(_PAGE, limit - len(found))
            page = self._client.get(
                "/builds",
                state=wanted or None,
                label=[f"{name}={value}" for name, value in (labels or {}).items()] or None,
                limit=size,
                after=before,
                mine=mine or None,
            )
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
