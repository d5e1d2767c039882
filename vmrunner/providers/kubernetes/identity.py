"""Identity of the namespace, verified: its uid, which no other ever has.

A namespace that was made anew under the same name is another scope: nothing that is missing in it
says anything about what was in the former.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from vmrunner.errors import Uncertain
from vmrunner.model import Scope
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.clock import boottime
from vmrunner.providers.common.cooldown import CallCooldown
from vmrunner.providers.kubernetes.client import KubeClient

KIND: Final = "kubernetes"
#: Seconds after which the uid is read again: until then a namespace made anew is not noticed by
#: what only adds to it.
FRESH: Final = 60.0


class NamespaceIdentity:
    """The namespace, in the API's eyes."""

    def __init__(
        self, client: KubeClient, namespace: str, elapsed: Callable[[], float] = boottime
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._scope: Scope | None = None
        self._read_at = float("-inf")
        #: The same; None when it cannot be told, which is not tried at every question.
        self.quietly: CallCooldown[Scope] = CallCooldown(self.scope, lambda: self._scope, elapsed)

    def scope(self) -> Scope:
        """Return the scope, as it was read lately. Raises `CallFailed`."""
        with self._lock:
            fresh = self._scope if self._elapsed() - self._read_at < FRESH else None
        return fresh or self.read()

    def read(self) -> Scope:
        """Read the uid now. Raises `CallFailed`."""
        found = self._client.call("GET", f"/api/v1/namespaces/{self._namespace}")
        scope = Scope(KIND, str(found["metadata"]["uid"]), self._namespace)
        with self._lock:
            self._scope, self._read_at = scope, self._elapsed()
        return scope

    def confirm(self, scope: Scope) -> None:
        """See that it is still this one: asked after what is missing was not seen. Raises
        `CallFailed`."""
        now = self.read()
        if now != scope:
            text = f"namespace {self._namespace} was made anew: its uid is {now.account}"
            raise CallFailed("", Uncertain(text))
