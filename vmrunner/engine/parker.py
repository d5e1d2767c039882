"""Parking and waking: a pool's VMs are stopped to wait, and started when their builds come.

The row says first what is wanted (`parking`, `waking`); the provider is then asked again and again,
until a look shows it. Both are idempotent there.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from vmrunner.engine.completion import BuildCompletion
from vmrunner.engine.context import EngineContext, log
from vmrunner.engine.snapshot import Snapshot
from vmrunner.errors import BadOrder, Fenced, NoCapacity, QuotaExceeded
from vmrunner.model import Death, Instance, InstanceState
from vmrunner.providers import Parks

REPEAT_AFTER: Final = 15.0  # seconds; an accepted request without effect is sent again then

#: Answers after which a VM stays off.
_REFUSED: Final = (NoCapacity, QuotaExceeded, BadOrder)


@dataclass(slots=True)
class _Request:
    """A request that is under way, or waits to be sent again."""

    row: Instance
    call: Future[None] | None = None
    at: float = 0.0  # monotonic


class Parker:
    """The parkings and wakings of one engine. Used by the tick's thread alone, but for `_call`."""

    def __init__(
        self,
        context: EngineContext,
        completion: BuildCompletion,
        unparkable: Callable[[Instance, Exception], None],
    ) -> None:
        """`unparkable`: called with a VM that its provider does not park, and the error."""
        self._context = context
        self._completion = completion
        self._unparkable = unparkable
        self._requests: dict[tuple[str, int, InstanceState], _Request] = {}

    def update(self, snapshot: Snapshot) -> None:
        """Send the requests about our VMs; take in the answers."""
        for key, request in list(self._requests.items()):
            if request.call is not None and request.call.done():
                del self._requests[key]
                with self._context.guard("park", request.row.build):
                    self._answered(snapshot, request)
        now = self._context.monotonic()
        for row in snapshot.restless_rows():
            if row.state not in (InstanceState.PARKING, InstanceState.WAKING):
                continue
            if row.owner != self._context.id:
                continue  # it is taken over first
            key = (row.id, row.epoch, row.state)
            former = self._requests.get(key)
            if former is None or (former.call is None and now >= former.at):
                self._say(key, row)
        for key, request in list(self._requests.items()):
            row_now = snapshot.rows.get(key[0])
            current = row_now is not None and (row_now.id, row_now.epoch, row_now.state) == key
            if request.call is None and not current:
                del self._requests[key]

    # --- within ---

    def _say(self, key: tuple[str, int, InstanceState], row: Instance) -> None:
        call = self._context.change_threads(row.provider).submit(self._call(row))
        self._requests[key] = _Request(row, call)
        call.add_done_callback(lambda _: self._context.wake())

    def _call(self, row: Instance) -> Callable[[], None]:
        def call() -> None:
            now = self._context.ledger.instances.get(row.id)
            provider = self._context.provider_of(row)
            if (now.epoch, now.state) != (row.epoch, row.state) or row.ref is None:
                raise Fenced(f"{row.id} is {now.state} at epoch {now.epoch}")
            if not isinstance(provider, Parks):
                raise BadOrder(f"{row.provider} cannot park VMs")
            (provider.park if row.state is InstanceState.PARKING else provider.wake)(row.ref)

        return call

    def _answered(self, snapshot: Snapshot, request: _Request) -> None:
        row = snapshot.mine.get(request.row.id)
        assert request.call is not None
        error = request.call.exception()
        if row is None or (row.epoch, row.state) != (request.row.epoch, request.row.state):
            return
        if isinstance(error, _REFUSED):
            self._refused(snapshot, row, error)
            return
        if error is not None and not isinstance(error, Fenced):
            log.warning("%s is not %s yet: %s", row.id, row.state, error)
        wait = self._context.monotonic() + REPEAT_AFTER
        self._requests[row.id, row.epoch, row.state] = _Request(row, at=wait)

    def _refused(self, snapshot: Snapshot, row: Instance, error: Exception) -> None:
        """End a VM that stays as it is, and is of no use."""
        context = self._context
        build = snapshot.builds.get(row.build or "")
        if build is not None and build.instance == row.id and build.owner == context.id:
            dying = self._completion.unwoken(build, row, str(error))
            snapshot.builds.pop(build.id, None)
        else:
            self._unparkable(row, error)
            dying = context.ledger.instances.mark_deleting(
                row.id, seen_epoch=row.epoch, death=Death.DONE, now=context.now(row),
                message=str(error),
            )  # fmt: skip
        if dying is not None:
            snapshot.update(dying)
