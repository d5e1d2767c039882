"""Makes sure that an engine drives the builds this process waits for: one elsewhere, one in this
process, or one in the background."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from vmrunner.errors import LedgerError, VmrunnerError
from vmrunner.lib import ids, process
from vmrunner.runtime.background import SUBMITTER, BackgroundEngines, one_host, served

if TYPE_CHECKING:
    from vmrunner.engine.engine import Engine
    from vmrunner.ledger import Ledger
    from vmrunner.runtime.provider_set import ProviderSet
    from vmrunner.store.uploader import Uploader

log = logging.getLogger("vmrunner")

CHECK: Final = 2.0  # seconds between looks at the others
OWNER_HEARTBEAT: Final = 10.0  # seconds between signs of life to other hosts
#: Background engines that ended without serving, until it is given up; each wait is twice the last.
ENGINE_TRIES: Final = 5
#: So long, in seconds, a process that ends with its engine uploads; the rest is left to others.
UPLOAD: Final = 20.0
STEADY: Final = 60.0  # seconds after which one that ended counts as one that served


class EngineHost:
    """Sees to it that an engine serves a provider: one that lives elsewhere, else one in this
    process, of this `kind`; with None a background one. Call `ensure` in every wait: it is cheap.
    Safe in threads. `engine` makes one, `wake` is where the others listen;
    `upload` makes what uploads what its builds left."""

    def __init__(
        self,
        kind: str | None,
        *,
        ledger: Callable[[], Ledger],
        providers: ProviderSet,
        background: BackgroundEngines,
        engine: Callable[[str], Engine],
        wake: Path,
        upload: Callable[[], Uploader],
    ) -> None:
        self._kind = kind
        self._ledger = ledger
        self._providers = providers
        self._others = background
        self._new_engine = engine
        self._wake = wake
        self._upload = upload
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._checked: dict[str, float] = {}
        self._beaten = self._recognised = float("-inf")
        self._member: str | None = None
        self._tries = 0
        self._spawned = float("-inf")
        self._unserved = ""  # why no engine serves

    def _leave_to_parent(self) -> None:
        """Begin anew after a fork. The engine goes on in the parent: to close its copy would throw
        it out."""
        if self._pid != os.getpid():
            self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def own(self) -> str | None:
        """Return the id of our engine in this process; None: it is another's."""
        return self._engine.id if self._engine is not None else None

    def ensure(self, provider: str, *, staying: bool = False) -> None:
        """Start an engine when none lives that has this provider. `staying`: look at once, and
        count none that ends with a build of its own, since no caller may wait and look again.
        Raises VmrunnerError when there is no hope: the provider cannot be opened, or a background
        engine ends as soon as it was started."""
        now = time.monotonic()
        self._leave_to_parent()
        with self._lock:
            self._drop_dead_engine()
            if self._engine is not None and provider in self._engine.launches:
                return
            if not staying and now - self._checked.get(provider, float("-inf")) < CHECK:
                return
            self._checked[provider] = now
            self._unserved = ""
            self._recognise(now)
            if served(self._ledger(), [provider], staying=staying):
                self._show_up(now)
            elif provider not in self._providers.settings.providers:
                self._unserved = f"no engine that lives has provider {provider!r}, nor have we"
            elif self._kind is None:
                self._background(provider, now)
            else:
                self._here(provider)

    def _here(self, provider: str) -> None:
        """An engine in this process."""
        if self._engine is None:
            engine = self._engine = self._new_engine(self._kind or "")
            self._stop = stop = threading.Event()
            self._thread = threading.Thread(
                target=engine.run, args=(stop.is_set,), name="engine", daemon=True
            )
            self._thread.start()
        if provider not in self._engine.launches:
            self._providers.get(provider)  # or it says why not
            self._engine.context.providers = self._providers.all()
            self._engine.wake()

    def _drop_dead_engine(self) -> None:
        """Let go of our engine whose thread ended, by whatever: without one nothing moves."""
        if self._thread is not None and not self._thread.is_alive() and not self._stop.is_set():
            log.error("the engine in this process has ended: starting another")
            self._let_go()
            self._checked.clear()

    def _background(self, provider: str, now: float) -> None:
        """An engine that outlives us. One that ends at once is started again a few times only."""
        if now - self._spawned >= STEADY:
            self._tries = 0
        if self._tries and now - self._spawned < CHECK * 2 ** (self._tries - 1):
            return
        if self._tries:
            self._providers.get(provider)  # or it says why not
        if self._tries >= ENGINE_TRIES:
            raise VmrunnerError(
                f"the background engine ends as soon as it was started, {self._tries} times by now",
                hint=f"see the end of {self._others.log}",
            )
        self._tries += 1
        self._spawned = now
        self._others.spawn()

    def waiting(self, build: str) -> str:
        """The reason why a build is still queued, as far as we know."""
        engine = self._engine
        if engine is not None and engine.refused is not None:
            return str(engine.refused)
        return (engine.waiting.get(build, "") if engine is not None else "") or self._unserved

    def _recognise(self, now: float) -> None:
        """See whether the ledger was upgraded under us, or set back: where the engine is another's,
        nothing else in this process does."""
        if now - self._recognised >= OWNER_HEARTBEAT:
            self._ledger().recognise()
            self._recognised = now

    def _show_up(self, now: float) -> None:
        """Tell engines on other hosts, which cannot see it, that this process lives."""
        if self._kind is None or now - self._beaten < OWNER_HEARTBEAT or one_host(self._ledger()):
            return
        self._beaten = now
        engines, at = self._ledger().engines, time.time()
        if self._member is None or not engines.beat(self._member, at):
            self._member = self._member or ids.engine_id()
            engines.join(self._member, process.current(), SUBMITTER, at)

    def wake(self) -> None:
        """Wake the serving engine: something was submitted, or is to end."""
        from vmrunner.lib import wakeup

        engine = self._engine
        if engine is not None:
            engine.wake()
        else:
            wakeup.poke(self._wake)

    def close(self) -> None:
        """Let the own engine go; what belongs to the ledger goes on in its VM."""
        self._leave_to_parent()
        with self._lock:
            self._let_go()
            if self._member is not None:
                try:
                    self._ledger().engines.leave(self._member)
                except LedgerError as error:
                    log.warning("%s", error)  # its silence says the same, a minute later
                self._member = None

    def _let_go(self) -> None:
        if self._engine is None or self._thread is None:
            return
        self._stop.set()
        self._engine.wake()
        self._thread.join(timeout=5)
        self._engine.close()
        self._engine = self._thread = None
        self._upload_rest()

    def _upload_rest(self) -> None:
        """Upload what our engine's builds left. What takes long, as with a store that is out of
        reach, is left to the next process, from its beginning."""
        until = time.monotonic() + UPLOAD

        def upload() -> None:
            try:
                self._upload().run(lambda: time.monotonic() > until)
            except VmrunnerError as error:
                log.warning("%s", error)

        thread = threading.Thread(target=upload, name="uploads", daemon=True)
        thread.start()
        thread.join(UPLOAD)
