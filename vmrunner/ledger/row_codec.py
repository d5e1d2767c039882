"""Rows to frozen values and back: the only place that knows the columns of a value."""

from __future__ import annotations

import base64
import json
import math
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from vmrunner.errors import NotFound, Unreadable
from vmrunner.ledger.sql import ColumnClause
from vmrunner.ledger.tables import BUILDS, IMAGES, INSTANCES
from vmrunner.lib import plain_json
from vmrunner.model import (
    NO_USAGE,
    Access,
    Address,
    BuildEvent,
    BuildRecord,
    BuildSpec,
    BuildState,
    BuildUsage,
    Chunk,
    Cost,
    Death,
    ImageState,
    Instance,
    InstanceState,
    Kind,
    MadeImage,
    Offer,
    Order,
    Phase,
    PriceSource,
    Process,
    Rate,
    Reason,
    Ref,
    Result,
    Role,
    Scope,
    Start,
)

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from vmrunner.model import PoolSpec

T = TypeVar("T")

_b, _i = BUILDS.c, INSTANCES.c

#: What `build` reads.
BUILD: Final = (
    _b.id, _b.spec, _b.state, _b.created_at, _b.state_since, _b.attempt, _b.instance, _b.result,
    _b.reason, _b.exit_code, _b.message, _b.finished_at, _b.submitter, _b.owner, _b.owner_until,
    _b.epoch, _b.cancel, _b.cancelled_at, _b.hold_until, _b.steps_started, _b.phases, _b.cost,
    _b.tenant, _b.actor, _b.lease_until, _b.source_object, _b.log_object, _b.artifacts_object,
    _b.collected, _b.removed_at, _b.unpriced, _b.cost_final, _b.price_source, _b.price_at,
    _b.usage,
)  # fmt: skip

#: What `instance` reads.
INSTANCE: Final = (
    _i.id, _i.build, _i.attempt, _i.provider, _i.offer, _i.role, _i.state, _i.created_at,
    _i.state_since, _i.deadline, _i.epoch, _i.owner, _i.ref, _i.address, _i.death, _i.message,
    _i.deletes, _i.delete_at, _i.gone_at, _i.pool, _i.shape, _i.start, _i.due,
    _i.claimed_at, _i.usd_hour, _i.parked_usd_hour, _i.price_source, _i.price_at, _i.parked_at,
    _i.container,
)  # fmt: skip

#: What `image` reads.
_IMAGE_FIELDS: Final = tuple(field.name for field in fields(MadeImage) if field.name != "rate")
_IMAGE_RATE: Final = ("usd_hour", "price_source", "price_at")
IMAGE: Final = tuple(IMAGES.c[name] for name in (*_IMAGE_FIELDS, *_IMAGE_RATE))


def _named(columns: Sequence[ColumnClause[Any]]) -> Callable[..., Any]:
    """A row of these columns, by their names."""
    return namedtuple("Row", [column.name for column in columns])


_BuildRow, _InstanceRow = _named(BUILD), _named(INSTANCE)

_BUILD_STATES: Final = {state.value: state for state in BuildState}
_INSTANCE_STATES: Final = {state.value: state for state in InstanceState}
_QUEUED: Final = f"{BuildState.QUEUED.value} "  # how a move to there begins
_ROLES: Final = {role.value: role for role in Role}
_ADAPTERS: Final[dict[Any, TypeAdapter[Any]]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """Made when it is first used: no command needs them all."""
    from pydantic import TypeAdapter

    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _read(kind: type[T], text: str) -> T:
    """A value out of its JSON, by pydantic where that is not plain: it takes long to load."""
    try:
        return plain_json.value_of(kind, text)
    except plain_json.Doubt:
        return _adapter(kind).validate_json(text)


def _text(value: object) -> str:
    return _adapter(type(value)).dump_json(value).decode()


# A spec, an offer and a process never change and are read again and again: the same text is the
# same frozen value.
@lru_cache(maxsize=2048)
def spec_from(text: str) -> BuildSpec:
    return _read(BuildSpec, text)


@lru_cache(maxsize=2048)
def offer_from(text: str) -> Offer:
    return _read(Offer, text)


@lru_cache(maxsize=256)
def process_from(text: str) -> Process:
    return _read(Process, text)


@lru_cache(maxsize=256)
def pool_spec_from(text: str) -> PoolSpec:
    from vmrunner.model import PoolSpec

    return _read(PoolSpec, text)


def pool_spec_text(spec: PoolSpec) -> str:
    return _text(spec)


def spec_text(spec: BuildSpec) -> str:
    return _text(spec)


@lru_cache(maxsize=256)
def process_text(process: Process) -> str:
    return _text(process)


def names_text(names: Iterable[str]) -> str:
    return json.dumps(sorted(names))


def names_from(text: str) -> frozenset[str]:
    return frozenset(json.loads(text))


def usage_text(usage: BuildUsage) -> str | None:
    return None if usage == NO_USAGE else _text(usage)


def usage_from(text: str | None) -> BuildUsage:
    return NO_USAGE if text is None else _read(BuildUsage, text)


def phase_text(state: str, now: float) -> str:
    """Return one move of a build, as it is appended to its phases."""
    return f"{state} {now!r}\n"


def phases(text: str) -> tuple[Phase, ...]:
    """The phases of a build that its moves make."""
    moves = [line.split(" ") for line in text.splitlines()]
    times = [float(time) for _, time in moves]
    return tuple(
        Phase(
            state=_BUILD_STATES[state],
            started=times[n],
            ended=times[n + 1] if n + 1 < len(times) else None,
        )
        for n, (state, _) in enumerate(moves)
        if state != BuildState.FINISHED
    )


def time_queued(text: str) -> float | None:
    """Seconds that a build was queued, over all its stays there that ended; None: none did. Most
    have one, which is read without the rest: of a day's builds that is a tenth of the work."""
    if text.count(_QUEUED) == 1 and text.startswith(_QUEUED):
        first, _, rest = text.partition("\n")
        second = rest.partition("\n")[0]
        return float(second.rpartition(" ")[2]) - float(first[len(_QUEUED) :]) if second else None
    ended = [
        phase.ended - phase.started
        for phase in phases(text)
        if phase.state is BuildState.QUEUED and phase.ended is not None
    ]
    return sum(ended) if ended else None


def found_build(row: Sequence[Any] | None, build_id: str) -> BuildRecord:
    """The build of a row that was looked up by its id. Raises NotFound, and as `build`."""
    if row is None:
        raise NotFound(f"there is no build {build_id}")
    return build(row)


def build(row: Sequence[Any]) -> BuildRecord:
    """A row that begins with the columns `BUILD`. Raises Unreadable."""
    try:
        return _build(row)
    except Exception as error:
        raise Unreadable(f"the row of build {row[0]} cannot be read: {_why(error)}") from error


def instance(row: Sequence[Any]) -> Instance:
    """A row that begins with the columns `INSTANCE`. Raises Unreadable."""
    try:
        return _instance(row)
    except Exception as error:
        raise Unreadable(f"the row of {row[0]} cannot be read: {_why(error)}") from error


def scope(row: Sequence[Any]) -> Scope:
    """Return the scope of the offer that a row begins with. Raises Unreadable."""
    return _offer(row).scope


def image_of_offer(row: Sequence[Any]) -> str:
    """Return the image of the offer that a row begins with. Raises Unreadable."""
    return _offer(row).image


def _offer(row: Sequence[Any]) -> Offer:
    try:
        return offer_from(row[0])
    except Exception as error:
        raise Unreadable(f"an offer cannot be read: {_why(error)}") from error


def image(row: Sequence[Any]) -> MadeImage:
    """A row that begins with the columns `IMAGE`. Raises Unreadable."""
    try:
        values = {column.name: value for column, value in zip(IMAGE, row, strict=True)}
        values["scope"] = Scope.parse(values["scope"])
        values["state"] = ImageState(values["state"])
        values["snapshots"] = tuple(str(name) for name in json.loads(values["snapshots"]))
        values["rate"] = _rate(
            values.pop("usd_hour"), None, values.pop("price_source"), values.pop("price_at")
        )
        return MadeImage(**values)
    except Exception as error:
        raise Unreadable(f"the row of image {row[0]} cannot be read: {_why(error)}") from error


def image_values(image: MadeImage) -> dict[str, Any]:
    """Return an image's values by column."""
    values = {name: getattr(image, name) for name in _IMAGE_FIELDS}
    rate = image.rate
    return values | {
        "usd_hour": rate.usd_hour,
        "price_source": rate.source.value,
        "price_at": rate.at,
        "scope": str(image.scope),
        "state": image.state.value,
        "snapshots": list_text(image.snapshots),
    }


def list_text(names: Iterable[str]) -> str:
    return json.dumps(list(names))


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _number(value: Any) -> Any:
    """A time or a count with which one can reckon."""
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return value


def finite_or_none(value: Any) -> Any:
    """The same, or nothing. Raises ValueError."""
    return None if value is None else _number(value)


def _build(columns: Sequence[Any]) -> BuildRecord:
    row = _BuildRow(*columns[: len(BUILD)])  # more may follow
    return BuildRecord(
        id=row.id,
        spec=spec_from(row.spec),
        state=_BUILD_STATES[row.state],
        created_at=_number(row.created_at),
        state_since=_number(row.state_since),
        attempt=_number(row.attempt),
        instance=row.instance,
        result=Result(row.result) if row.result else None,
        reason=Reason(row.reason) if row.reason else None,
        exit_code=row.exit_code,
        message=row.message,
        finished_at=row.finished_at,
        submitter=process_from(row.submitter) if row.submitter else None,
        owner=row.owner,
        owner_until=row.owner_until,
        epoch=_number(row.epoch),
        cancel=Reason(row.cancel) if row.cancel else None,
        cancelled_at=finite_or_none(row.cancelled_at),
        hold_until=finite_or_none(row.hold_until),
        steps_started=bool(row.steps_started),
        phases=phases(row.phases),
        cost=Cost(
            known=row.cost,
            unpriced=row.unpriced,
            final=bool(row.cost_final),
            source=PriceSource(row.price_source) if row.price_source else None,
            at=finite_or_none(row.price_at),
        ),
        tenant=row.tenant,
        actor=row.actor,
        lease_until=finite_or_none(row.lease_until),
        source_object=row.source_object,
        log_object=row.log_object,
        artifacts_object=row.artifacts_object,
        collected=row.collected,
        removed_at=finite_or_none(row.removed_at),
        usage=usage_from(row.usage),
    )


def _instance(columns: Sequence[Any]) -> Instance:
    row = _InstanceRow(*columns[: len(INSTANCE)])  # more may follow
    return Instance(
        id=row.id,
        build=row.build,
        attempt=row.attempt,
        provider=row.provider,
        offer=offer_from(row.offer),
        role=_ROLES[row.role],
        state=_INSTANCE_STATES[row.state],
        created_at=_number(row.created_at),
        state_since=_number(row.state_since),
        deadline=_number(row.deadline),
        epoch=_number(row.epoch),
        owner=row.owner,
        ref=_ref(row.ref) if row.ref else None,
        address=Address(*json.loads(row.address)) if row.address else None,
        death=Death(row.death) if row.death else None,
        message=row.message,
        deletes=_number(row.deletes),
        delete_at=_number(row.delete_at),
        gone_at=row.gone_at,
        pool=row.pool,
        shape=row.shape,
        start=Start(row.start) if row.start else None,
        due=finite_or_none(row.due),
        claimed_at=finite_or_none(row.claimed_at),
        rate=_rate(row.usd_hour, row.parked_usd_hour, row.price_source, row.price_at),
        parked_at=finite_or_none(row.parked_at),
        container=row.container,
    )


def _rate(usd_hour: float | None, parked: float | None, source: str, at: float | None) -> Rate:
    return Rate(
        usd_hour=finite_or_none(usd_hour),
        parked_usd_hour=finite_or_none(parked),
        source=PriceSource(source),
        at=finite_or_none(at),
    )


@lru_cache(maxsize=256)
def offer_text(offer: Offer) -> str:
    return _text(offer)


def ref_text(ref: Ref) -> str:
    return json.dumps([ref.scope, ref.kind, ref.id])


def _ref(text: str) -> Ref:
    scope, kind, name = json.loads(text)
    return Ref(Scope(*scope), Kind(kind), name)


def address_text(address: Address) -> str:
    return json.dumps(address)


# --- what is sealed ---------------------------------------------------------------------------


def order_bytes(order: Order) -> bytes:
    """The user data as it is, since its exact bytes matter, behind one line for the rest."""
    head = _adapter(Order).dump_json(order, exclude={"user_data"}, exclude_none=True)
    return head + b"\n" + order.user_data


def order_from(data: bytes) -> Order:
    head, _, user_data = data.partition(b"\n")
    return _adapter(Order).validate_python({**json.loads(head), "user_data": user_data})


def access_bytes(access: Access) -> bytes:
    return _adapter(Access).dump_json(access)


def access_from(data: bytes) -> Access:
    return _adapter(Access).validate_json(data)


def secrets_bytes(secrets: Mapping[str, bytes]) -> bytes:
    return json.dumps({k: base64.b64encode(v).decode() for k, v in secrets.items()}).encode()


def secrets_from(data: bytes) -> dict[str, bytes]:
    return {k: base64.b64decode(v) for k, v in json.loads(data).items()}


# --- events and chunks ------------------------------------------------------------------------


def event_data(data: Mapping[str, str | int | float | bool | None]) -> str:
    return json.dumps(data) if data else "{}"


def event(row: Sequence[Any]) -> BuildEvent:
    """Decode an event from seq, time, kind, data."""
    return BuildEvent(seq=row[0], time=row[1], kind=row[2], data=json.loads(row[3]))


def chunk(row: Sequence[Any]) -> Chunk:
    """Decode a chunk from seq, attempt, time, offset, line, data."""
    return Chunk(
        seq=row[0], attempt=row[1], time=row[2], offset=row[3], line=row[4], data=bytes(row[5])
    )
