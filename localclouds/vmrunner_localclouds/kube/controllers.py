"""Controllers: what the cluster does by itself, each of which can be slow, off, or wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vmrunner_localclouds.kube.api_error import Json
from vmrunner_localclouds.kube.store import Change

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

Effect = Callable[[], object]


class Controller:
    """One controller. `seconds`: so long it takes to see a change. `instead`: called with each
    effect in place of it, so that a test makes the controller wrong."""

    def __init__(self, cloud: LocalKube) -> None:
        self._cloud = cloud
        self.seconds = 0.0
        self.instead: Callable[[Effect], object] | None = None
        self._on = True
        self._backlog: list[Effect] = []
        cloud.store.listeners.append(self._changed)

    @property
    def on(self) -> bool:
        return self._on

    @on.setter
    def on(self, on: bool) -> None:
        """Off: nothing happens. On again: all that was due in between."""
        with self._cloud.held():
            self._on = on
            if on:
                backlog, self._backlog = self._backlog, []
                for effect in backlog:
                    self._do(effect)

    def soon(self, effect: Effect, seconds: float = 0.0) -> None:
        """Let `effect` happen once this controller has seen the change, and `seconds` after it."""
        self._cloud.later(seconds + self.seconds, lambda: self._do(effect))

    def _changed(self, change: Change) -> None:
        raise NotImplementedError

    def _of(self, uid: str) -> Json | None:
        """The object of this uid, if it is still there."""
        found = self._cloud.store.find(uid)
        return found[1] if found else None

    def _do(self, effect: Effect) -> None:
        if not self._on:
            self._backlog.append(effect)
        elif self.instead is not None:
            self.instead(effect)
        else:
            effect()
