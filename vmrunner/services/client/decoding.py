"""Documents back to the values that they show. What they do not show keeps its default."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn, TypeVar

from vmrunner.errors import ServerUnreachable
from vmrunner.model import (
    Address,
    ArtifactRule,
    BuildEvent,
    BuildRecord,
    BuildSpec,
    BuildState,
    BuildUsage,
    CacheRule,
    Chunk,
    CommandEnd,
    CommandSummary,
    Cost,
    Death,
    FileEntry,
    Instance,
    InstanceState,
    Kind,
    Market,
    Offer,
    Phase,
    PriceSource,
    Rate,
    Reason,
    Ref,
    Result,
    Role,
    Scope,
    Start,
    Step,
    StoredCache,
    network_of,
)

S = TypeVar("S")
T = TypeVar("T")
Document = Mapping[str, Any]


def _checked(decode: Callable[[S], T]) -> Callable[[S], T]:
    @wraps(decode)
    def checked(document: S) -> T:
        try:
            return decode(document)
        except (KeyError, TypeError, ValueError) as error:
            raise ServerUnreachable(
                f"the server sent a document that cannot be read: {type(error).__name__}: {error}",
                hint="is it another version?",
            ) from error

    return checked


def known(kind: type[T], document: Document) -> T:
    """Return a value of what its document has for it: a newer server's may have more."""
    names = {field.name for field in fields(kind)} & document.keys()  # type: ignore[arg-type]
    return kind(**{name: document[name] for name in names})


def moment(text: str | None) -> float | None:
    """Return epoch seconds of a time as RFC 3339 writes it."""
    return None if text is None else datetime.fromisoformat(text).timestamp()


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@_checked
def spec(document: Document) -> BuildSpec:
    """Decode all that a build was asked for."""
    converted: dict[str, Any] = {
        "steps": tuple(map(_step, document["steps"])),
        "runtime": document["container_runtime"],
        "network": network_of(document["network"]),
        "name": document["name"] or "",
        "secrets": tuple(document["secrets"]),
        "artifacts": tuple(
            ArtifactRule(glob=item["path"], always=item["always"]) for item in document["artifacts"]
        ),
        "caches": tuple(
            CacheRule(key=item["key"], path=item["path"], fallback=tuple(item["fallback"]))
            for item in document["caches"]
        ),
    }
    return known(BuildSpec, {**document, **converted})


def _step(document: Document) -> Step:
    run, argv = document.get("run"), tuple(document.get("argv") or ())
    title = run if run is not None else " ".join(argv)
    name = "" if document["name"] == title else document["name"]
    return Step(
        run=run,
        argv=argv,
        name=name,
        timeout=document.get("timeout"),
        env=document.get("env") or {},
    )


@_checked
def command_summary(document: Document) -> CommandSummary:
    """Decode a command of a sandbox."""
    end = None
    if document["exit_code"] is not None:
        end = CommandEnd(exit_code=document["exit_code"], timed_out=document["timed_out"])
    return CommandSummary(id=document["id"], title=document["title"], end=end)


@_checked
def command_end(document: Document) -> CommandEnd:
    """Decode the end of a command of a sandbox."""
    return known(CommandEnd, document)


@_checked
def file_entry(document: Document) -> FileEntry:
    """Decode a file of a sandbox."""
    converted = {"mode": int(document["mode"], 8), "modified": _time(document["modified_at"])}
    return known(FileEntry, {**document, **converted})


@_checked
def build(document: Document) -> BuildRecord:
    """Decode a build."""
    phases = tuple(
        Phase(
            state=BuildState(phase["state"]),
            started=_time(phase["started_at"]),
            ended=moment(phase["ended_at"]),
        )
        for phase in document["phases"]
    )
    finished = moment(document["finished_at"])
    since = finished if finished is not None else phases[-1].started
    return BuildRecord(
        id=document["id"],
        spec=spec(document),
        state=BuildState(document["state"]),
        created_at=_time(document["created_at"]),
        state_since=since,
        attempt=document["attempt"],
        instance=document["instance"],
        result=Result(document["result"]) if document["result"] else None,
        reason=Reason(document["reason"]) if document["reason"] else None,
        exit_code=document["exit_code"],
        message=document["message"] or "",
        finished_at=finished,
        cancel=Reason(document["cancel"]) if document["cancel"] else None,
        hold_until=moment(document["hold_until"]),
        phases=phases,
        cost=_cost(document),
        usage=known(BuildUsage, document["usage"]),
        lease_until=since if document["foreground"] else None,
        actor=document.get("actor") or "",  # a former server's has none
        actor_name=document.get("actor_name") or "",
    )


def _cost(document: Document) -> Cost:
    usd, source = document["cost"], document["cost_source"]
    return Cost(
        known=usd or 0.0,
        unpriced=int(usd is None),
        final=document["cost_final"],
        source=PriceSource(source) if source else None,
        at=moment(document["cost_as_of"]),
    )


def _role(document: Document) -> Role:
    if document["build"]:
        return Role.BUILD
    return Role.POOL if document["pool"] else Role.IMAGE


@_checked
def instance(document: Document) -> Instance:
    """Decode a VM."""
    scope = Scope(document["kind"], document["account"], document["place"])
    created = _time(document["created_at"])
    return Instance(
        id=document["id"],
        build=document["build"],
        attempt=document["attempt"],
        provider=document["provider"],
        offer=Offer(
            scope=scope,
            machine_type=document["machine_type"],
            place=scope.place,
            market=Market(document["market"]),
            image=document["image"] or "",
        ),
        role=_role(document),
        state=InstanceState(document["state"]),
        created_at=created,
        state_since=created,
        deadline=_time(document["deadline"]),
        rate=Rate(
            usd_hour=document["usd_hour"],
            source=PriceSource(document["price_source"]),
            at=moment(document["price_as_of"]),
        ),
        epoch=0,
        ref=Ref(scope, Kind.INSTANCE, document["ref"]) if document["ref"] else None,
        address=Address.parse(document["address"]) if document["address"] else None,
        death=Death(document["death"]) if document["death"] else None,
        message=document["message"] or "",
        deletes=document["deletes"],
        gone_at=moment(document["gone_at"]),
        pool=document["pool"],
        start=Start(document["start"]) if document["start"] else None,
        due=moment(document["due"]),
        container=document.get("container"),  # a server of before has none
    )


@_checked
def event(document: Document) -> BuildEvent:
    """Decode an event."""
    return BuildEvent(
        seq=document["seq"],
        time=_time(document["time"]),
        kind=document["kind"],
        data=document["data"],
    )


@_checked
def cache(document: Document) -> StoredCache:
    """Decode a cache; of its object what is shown of it."""
    times = {name: _time(document[name]) for name in ("created_at", "used_at")}
    return known(StoredCache, {**document, **times, "object": "", "digest": ""})


def chunks(parts: Iterable[bytes]) -> Iterator[Chunk]:
    """Decode chunks of a log, each a line of JSON and as many bytes as that says."""
    pieces = iter(parts)
    piece, at = b"", 0
    while True:
        while (end := piece.find(b"\n", at)) < 0:
            if (more := next(pieces, None)) is None:
                return
            piece, at = piece[at:] + more, 0
        head = _head(piece[at:end])
        size = head.pop("size")
        found, at = [piece[end + 1 : end + 1 + size]], end + 1 + size
        while at > len(piece):
            at -= len(piece)
            piece = next(pieces, b"") or _cut_off()
            found.append(piece[:at])
        yield Chunk(**head, data=b"".join(found))


@_checked
def _head(line: bytes) -> dict[str, Any]:
    found = json.loads(line)
    return {name: found[name] for name in ("seq", "attempt", "time", "offset", "line", "size")}


def _cut_off() -> NoReturn:
    raise ServerUnreachable("the server's answer ends in the middle of a chunk", hint="try again")
