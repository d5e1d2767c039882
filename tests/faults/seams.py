"""Seams around what a process calls: its ledger, its provider, its store. Each counts effects, and
kills the process, or puts it to sleep, at the one that the test names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.faults.tasks import Task
from vmrunner.errors import LedgerError, ProviderError, Refused

if TYPE_CHECKING:
    from tests.faults.node import Node

#: What changes the world, by part of the ledger.
EFFECTS = {
    "builds": {
        "advance",
        "steps_started",
        "finish",
        "finish_all",
        "hold",
        "requeue",
        "put_back",
        "retry",
        "take_over",
        "request_cancel",
    },
    "instances": {
        "start",
        "record",
        "next_offer",
        "addresses",
        "mark_deleting",
        "tried",
        "close",
        "close_all",
    },
    "logs": {"append"},
    "events": {"add", "repeat"},
    "engines": {"join", "beat", "leave"},
    "sightings": {"record"},
    "pools": {"declare", "note", "take_over", "ready", "park", "claim", "missed"},
    "objects": {"begin", "conclude", "put_off_logs", "mark", "mark_deleting", "forget"},
    "removals": {"drop_stored"},
}
#: What else a ledger has: it may be out of reach too.
OTHERS = ("budgets", "caches", "images", "outbox", "prices", "submitter_leases", "tokens")
STORE_EFFECTS = {"put", "delete"}
CLOUD_EFFECTS = {"create", "arm", "seal", "park", "wake", "delete"}


class Seam:
    """Around one part of the ledger, or the provider: counts effects, and stops at one."""

    def __init__(self, node: Node, part: Any, effects: set[str], label: str) -> None:
        self._node, self._part, self._effects, self._label = node, part, effects, label
        # They are asked for by `isinstance`.
        for ability in ("arm", "seal", "park", "wake", "guarded_roles", "ended"):
            if hasattr(part, ability):
                setattr(self, ability, self.__getattr__(ability))
        if hasattr(part, "box"):
            self.box = part.box

    @property
    def holds_no_network(self) -> bool:
        return bool(getattr(self._part, "holds_no_network", False))

    @property
    def holds_allow_lists(self) -> bool:
        return bool(getattr(self._part, "holds_allow_lists", False))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._part, name)
        if not callable(value):
            self._node.check()
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            self._node.check()
            if self._node.ledger_down and self._label not in ("cloud", "store"):
                Task.rest()  # whoever asks again does so when some time has passed
                raise LedgerError("the test's database is down")
            nothing = bool(args) and args[0] in ([], (), {})  # nobody is asked to write anything
            if name not in self._effects or nothing:
                return self._answer(value, args, kwargs)
            label = f"{self._label}.{name}"
            self._node.reach(f"before {label}")
            try:
                answer = self._answer(value, args, kwargs)
            except ProviderError as error:
                if name == "seal":
                    Task.rest()
                if name == "create" and isinstance(error, Refused):
                    self._node.world.refused.add(args[0].instance)
                raise
            self._node.reach(f"after {label}")
            return answer

        return call

    @staticmethod
    def _answer(value: Any, args: Any, kwargs: Any) -> Any:
        try:
            return value(*args, **kwargs)
        except LedgerError:
            Task.rest()  # as above
            raise


class LedgerSeam:
    """A ledger whose parts are seams."""

    def __init__(self, node: Node, ledger: Any) -> None:
        self._node, self._ledger = node, ledger
        for part, effects in EFFECTS.items():
            setattr(self, part, Seam(node, getattr(ledger, part), effects, part))
        for part in OTHERS:
            setattr(self, part, Seam(node, getattr(ledger, part), set(), part))

    def open_rows(self, **how: bool) -> Seam:
        return Seam(self._node, self._ledger.open_rows(**how), set(), "open rows")

    def __getattr__(self, name: str) -> Any:
        self._node.check()
        return getattr(self._ledger, name)
