"""`vmrunner github serve`: a listener and a scaler for each scale set, until it is stopped."""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from vmrunner.config import forges
from vmrunner.errors import ConfigError, VmrunnerError
from vmrunner.integrations.github import listener as listening
from vmrunner.integrations.github.http import GithubHttp
from vmrunner.integrations.github.identity import ServiceTokens, identity_of
from vmrunner.integrations.github.listener import JobListener
from vmrunner.integrations.github.plan import SETTLE
from vmrunner.integrations.github.runners import RunnerBuilds
from vmrunner.integrations.github.scaler import RunnerScaler
from vmrunner.integrations.github.service import ActionsService
from vmrunner.integrations.github.state import ScaleSetState
from vmrunner.lib.token_bucket import Bucket

if TYPE_CHECKING:
    from vmrunner.config.forges import GithubSettings, ScaleSetSettings
    from vmrunner.services.protocols import Service

log = logging.getLogger("vmrunner.github")

LOOK: Final = 5.0  # seconds between two looks at the ledger, when nothing is heard
STOP: Final = 10.0  # … that a runner which is being started, or a session's end, may take then


class GithubServer:
    """All scale sets of a configuration."""

    def __init__(self, service: Service, settings: GithubSettings) -> None:
        """Raises ConfigError when nothing is configured, a secret cannot be read, or a scale set's
        runners could never be."""
        if not settings.scale_sets:
            raise ConfigError(
                "github.scale_sets: there is none",
                hint="docs/github.md has the tables of a configuration",
            )
        place = forges.target(settings.url)
        self._http = GithubHttp(now=time.time)
        identity = identity_of(settings, place, self._http)
        self._actions = ActionsService(self._http, ServiceTokens(self._http, place, identity))
        self._stop = threading.Event()
        self._stopping: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.sets = [
            self._set(scale_set, RunnerBuilds(service, place, scale_set, settings.login))
            for scale_set in settings.scale_sets
        ]

    def _set(self, settings: ScaleSetSettings, builds: RunnerBuilds) -> ServedSet:
        builds.check()
        state = ScaleSetState()
        owner = f"{socket.gethostname()}-vmrunner"[:64]
        return ServedSet(
            settings.name,
            state,
            JobListener(settings, state, self._actions, owner, time.time),
            RunnerScaler(settings, state, self._actions, builds, time.time),
        )

    def stop(self) -> None:
        """Let `run` return, from any thread or signal."""
        self._stopping.put(None)  # of all that wakes a thread this alone may be called in a signal

    def run(self) -> None:
        """Serve until `stop`. What runs goes on: it is the ledger's."""
        scalers = []
        for scale_set in self.sets:
            _thread(f"listen-{scale_set.name}", partial(scale_set.listen, self._stop))
            scalers.append(_thread(f"scale-{scale_set.name}", partial(scale_set.scale, self._stop)))
        self._stopping.get()
        self._stop.set()
        for scale_set in self.sets:
            scale_set.state.changed.set()
        for thread in scalers:
            thread.join(STOP)
        for thread in [
            _thread(f"close-{scale_set.name}", scale_set.close) for scale_set in self.sets
        ]:
            thread.join(STOP)  # GitHub may be away


class ServedSet:
    """One scale set, and its two loops."""

    def __init__(
        self,
        name: str,
        state: ScaleSetState,
        listener: JobListener,
        scaler: RunnerScaler,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._vain = Bucket(listening.VAIN, monotonic)
        self.state = state
        self.listener = listener
        self.scaler = scaler

    def listen(self, stop: threading.Event) -> None:
        """Hear messages until `stop`."""
        failures = 0
        while not stop.is_set():
            try:
                if not self.listener.step():
                    self._vain.take(1)
                failures = 0
                stop.wait(self._vain.wait(1))
            except VmrunnerError as error:
                failures += 1
                if not stop.is_set():
                    self._pause(error, failures, stop)
            except Exception:
                failures += 1
                log.exception("%s", self.name)
                stop.wait(listening.REFUSED)

    def scale(self, stop: threading.Event) -> None:
        """Start runners until `stop`."""
        failures = 0
        while not stop.is_set():
            news = self.state.jobs.news
            self.state.changed.wait(LOOK if news is None or news.sure else SETTLE)
            self.state.changed.clear()
            if stop.is_set():
                return
            try:
                self.scaler.look()
                failures = 0
            except VmrunnerError as error:
                failures += 1
                self._pause(error, failures, stop)
            except Exception:
                failures += 1
                log.exception("%s", self.name)
                stop.wait(listening.REFUSED)

    def close(self) -> None:
        """Give the session back. One that stays open GitHub ends, when it is not heard for a
        while."""
        try:
            self.listener.close()
        except VmrunnerError as error:
            log.warning("%s: its session stays open: %s", self.name, error)

    def _pause(self, error: VmrunnerError, failures: int, stop: threading.Event) -> None:
        seconds = listening.pause_after(error, failures, listening.spread)
        log.warning("%s; again in %.0f s", listening.explanation(error, self.name), seconds)
        stop.wait(seconds)


def _thread(name: str, work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread
