"""The host of a build whose engine is a server's. For one in the foreground it says that the client
is there."""

from __future__ import annotations

import logging
import threading
from typing import Final, Self

from vmrunner.errors import NotFound, VmrunnerError
from vmrunner.services.client.http_client import HttpClient, segment
from vmrunner.services.client.ledger import RemoteBuilds

log = logging.getLogger("vmrunner")

RENEW: Final = 15.0  # seconds between two signs of life: a quarter of a lease
RENEW_TIMEOUT: Final = 5.0  # … for the answer to one: a node that hangs costs no lease


class RemoteHost:
    """Takes the place of an `EngineHost`. Safe in threads."""

    #: The id of an engine in this process: there is none.
    own: Final = None

    def __init__(self, client: HttpClient, builds: RemoteBuilds) -> None:
        self._client = client.hasty(RENEW_TIMEOUT)
        self._builds = builds
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._kept: set[str] = set()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def keep(self, build: str) -> None:
        """Renew the lease of a build from now on."""
        with self._lock:
            self._kept.add(build)
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
                self._thread.start()

    def _renew(self) -> None:
        while not self._stop.wait(RENEW):
            for build in tuple(self._kept):
                try:
                    if not self._client.post(f"/builds/{segment(build)}/lease").get("seconds"):
                        self._kept.discard(build)  # it has ended
                except NotFound:
                    self._kept.discard(build)
                except VmrunnerError as error:
                    log.warning("the lease of %s is not renewed yet: %s", build, error)

    def ensure(self, provider: str, *, staying: bool = False) -> None:
        """Do nothing: the server does."""

    def wake(self) -> None:
        """Do nothing: the server knows what it was asked for."""

    def waiting(self, build: str) -> str:
        """The reason why a build is still queued, from the server's last answer."""
        return self._builds.waiting.get(build, "")

    def close(self) -> None:
        """Say no more that anybody is there."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._client.close()
