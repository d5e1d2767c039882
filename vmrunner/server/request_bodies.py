"""Bodies of requests: bounded in size, time and rate, and read only after the caller is known."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ValidationError

from vmrunner.config.validation_errors import explained
from vmrunner.errors import ConfigError
from vmrunner.lib import turns, units
from vmrunner.server.problems import HttpProblem

JSON_BYTES: Final = 2 << 20
SMALL: Final = 64 << 10  # bytes of a body that costs next to nothing
WAITING: Final = 8  # larger ones of one caller at once
SHARE: Final = 4.0  # times what one took, until the next one of its caller
REFUSAL: Final = 1.0  # seconds until one more is told so: who asks without end waits too
BODY_PATIENCE: Final = 20.0  # seconds without a byte, or for a whole JSON body
LEAST_RATE: Final = 16 * 1024  # bytes a second, on the whole, after the patience
_NO_NUMBER: Final = "is no number of JSON"
_TOO_LONG: Final = "the body has a number of more digits than can be read"
_SUCH_AS: Final = 'such as {"steps": ["make"]}'

M = TypeVar("M", bound=BaseModel)


async def model(request: Request, kind: type[M], most: int = JSON_BYTES) -> M:
    """Read a JSON body of at most so many bytes as that model. Unknown fields are told with the
    nearest name."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) <= SMALL:
        most = min(most, SMALL)  # one in chunks may be longer than it tells
    if most <= SMALL:
        # In a thread: no other request is answered meanwhile.
        return await run_in_threadpool(_decoded, request, await whole(request, most), kind)
    large: LargeBodies = request.app.state.large_bodies
    async with large.turn(request) as turn:
        body = await whole(request, most)
        return await run_in_threadpool(_decoded_in_turn, request, body, kind, turn)


class LargeBody:
    """One that has its turn. `cost`: seconds of the processor that it took."""

    def __init__(self) -> None:
        self.cost = 0.05  # to be read


class LargeBodies:
    """Large bodies, and those of unknown size: of one caller one at a time, from its first
    byte until it is decoded, and for a while in proportion to what that took. For one event
    loop."""

    def __init__(self) -> None:
        self._callers: dict[str, tuple[asyncio.Semaphore, list[None]]] = {}

    @asynccontextmanager
    async def turn(self, request: Request) -> AsyncIterator[LargeBody]:
        """Wait for those of the same caller. Raises HttpProblem where too many wait already; that
        too takes its time."""
        caller = request.scope["state"].get("caller")
        actor = "" if caller is None else caller.principal.actor
        place, waiting = self._callers.setdefault(actor, (asyncio.Semaphore(1), []))
        if len(waiting) >= WAITING:
            await asyncio.sleep(REFUSAL)
            raise HttpProblem(
                429,
                f"{WAITING} bodies of this token above {SMALL >> 10} KiB are under way",
                fix="try again later, or send less",
                headers={"Retry-After": "5", "Connection": "close"},
            )
        waiting.append(None)
        try:
            await place.acquire()
        except BaseException:
            self._leave(actor)
            raise
        body = LargeBody()
        try:
            yield body
        finally:
            later = asyncio.get_running_loop().call_later
            later(SHARE * body.cost, self._end, actor)

    def _end(self, actor: str) -> None:
        self._callers[actor][0].release()
        self._leave(actor)

    def _leave(self, actor: str) -> None:
        waiting = self._callers[actor][1]
        waiting.pop()
        if not waiting:
            del self._callers[actor]


def _decoded_in_turn(request: Request, body: bytes, kind: type[M], turn: LargeBody) -> M:
    if len(body) <= SMALL:
        return _decoded(request, body, kind)
    with turns.costly():
        began = time.thread_time()
        try:
            return _decoded(request, body, kind)
        finally:
            turn.cost += time.thread_time() - began


def _decoded(request: Request, body: bytes, kind: type[M]) -> M:
    try:
        document = json.loads(
            body or b"{}", parse_constant=_refuse, object_pairs_hook=_without_repeats
        )
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise HttpProblem(400, f"the body is no JSON: {place}: {error.msg}", fix=_SUCH_AS) from None
    except UnicodeDecodeError as error:
        place = f"the body is not UTF-8: byte {error.start}"
        raise HttpProblem(400, place, fix="encode its text as UTF-8") from None
    except RecursionError:
        fix = "fewer levels of lists and tables"
        raise HttpProblem(400, "the body is nested too deeply", fix=fix) from None
    except ValueError as error:  # of ours, or of a number that is too long to be read
        text = f"the body is no JSON: {error}" if str(error).endswith(_NO_NUMBER) else _TOO_LONG
        raise HttpProblem(400, text[:200], fix=_SUCH_AS) from None
    if not isinstance(document, dict):
        raise HttpProblem(422, "the body is no JSON object", fix=_SUCH_AS)
    halves = b"\\ud" in body or b"\\uD" in body  # how alone JSON can say one
    if halves:
        refuse_unencodable(document)
    request.state.body = document  # for the problem that it may be
    return validated(document, kind)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Of a key that stands twice one value would count silently."""
    found = dict(pairs)
    if len(found) < len(pairs):
        key, count = Counter(name for name, _ in pairs).most_common(1)[0]
        raise HttpProblem(422, f"{key[:60]}: it is there {count} times", fix="say it once")
    return found


def validated(document: dict[str, Any], kind: type[M]) -> M:
    """Return a document as its model. Raises ConfigError."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise explained(error, kind, lambda _: "") from None


def refuse_unencodable(document: dict[str, Any]) -> None:
    """Raises ConfigError for half of a surrogate pair, which JSON can say and UTF-8 cannot."""
    if (field := _unencodable(document)) is not None:
        raise ConfigError(f"{field}: it is not UTF-8", hint="encode it, with base64 for example")


def _unencodable(document: dict[str, Any]) -> str | None:
    """Return the first field with half of a surrogate pair, which JSON can say and UTF-8 cannot: it
    could neither be stored nor told of. None: there is none."""
    pending: list[tuple[str, Any]] = [("", document)]
    while pending:
        at, value = pending.pop()
        if isinstance(value, dict):
            for name, found in value.items():
                text = _text(name)
                if text is None:
                    return at or "the body"
                pending.append((f"{at}.{text}" if at else text, found))
        elif isinstance(value, list):
            pending += [(f"{at}[{n}]", found) for n, found in enumerate(value)]
        elif isinstance(value, str) and _text(value) is None:
            return at
    return None


def _text(value: str) -> str | None:
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} {_NO_NUMBER}")


async def whole(request: Request, most: int) -> bytes:
    """Read a body of at most so many bytes."""
    body = bytearray()
    async for part in stream(request, most):
        body += part
    return bytes(body)


async def stream(request: Request, most: int) -> AsyncIterator[bytes]:
    """Yield the body in parts. Raises HttpProblem for one that is larger than `most` bytes, or
    comes too slowly."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise _too_large(most)
    size, began = 0, time.monotonic()
    parts = request.stream().__aiter__()
    while True:
        try:
            part = await asyncio.wait_for(anext(parts), BODY_PATIENCE)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise _too_slow() from None
        size += len(part)
        if size > most:
            raise _too_large(most)
        passed = time.monotonic() - began
        if passed > BODY_PATIENCE and size < LEAST_RATE * passed:
            raise _too_slow()
        yield part


def _too_large(most: int) -> HttpProblem:
    # What is more than `problems` discards is never read: the connection cannot be used again.
    shut = {"Connection": "close"}
    text = f"the body is larger than {units.amount(most)}"
    return HttpProblem(413, text, fix="send less", headers=shut)


def _too_slow() -> HttpProblem:
    return HttpProblem(408, "the body comes too slowly", headers={"Connection": "close"})
