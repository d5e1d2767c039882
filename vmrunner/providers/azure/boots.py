"""Starts from one image, of which Azure serves few at once: of more, some time out while their
disks are made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from vmrunner.errors import Throttled
from vmrunner.providers.azure import galleries
from vmrunner.providers.azure.catalog import is_managed
from vmrunner.providers.common.clock import boottime

#: "One managed image supports up to 20 simultaneous deployments" (Microsoft, "Create a managed
#: image of a VM").
AT_ONCE: Final = 20
#: "For every 50 VMs that you create concurrently, we recommend that you keep one replica"
#: (Microsoft, "Store and share resources in Azure Compute Gallery"). A version may have no other.
AT_ONCE_OF_VERSION: Final = 50
#: A start whose end was not seen counts for this long, in seconds.
LONGEST_BOOT: Final = 600.0
#: When to ask again, in seconds.
ASK_AGAIN: Final = 5.0


class ManagedBoots:
    """The starts of one process. Thread-safe."""

    def __init__(self, elapsed: Callable[[], float] = boottime) -> None:
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._begun: dict[str, tuple[str, float]] = {}  # instance → image, since when

    def begin(self, image: str, instance: str) -> None:
        """Count a start; the same again counts once. Raises `Throttled` where too many are under
        way."""
        most = at_once(image)
        if most is None:
            return
        image, now = image.lower(), self._elapsed()
        with self._lock:
            for name, (_, since) in list(self._begun.items()):
                if now - since >= LONGEST_BOOT:
                    del self._begun[name]
            others = sum(other == image for other, _ in self._begun.values())
            if instance not in self._begun and others >= most:
                raise Throttled(
                    f"{others} VMs boot from one image, and Azure serves no more at once",
                    hint="of managed images fewer than of versions in a gallery: docs/azure.md",
                    wait=ASK_AGAIN,
                )
            self._begun.setdefault(instance, (image, now))

    def end(self, instance: str) -> None:
        """Note that a VM runs, or is none."""
        with self._lock:
            self._begun.pop(instance, None)


def at_once(image: str) -> int | None:
    """Number of VMs that may boot from an image at once; None: no limit of it is known."""
    if is_managed(image):
        return AT_ONCE
    return AT_ONCE_OF_VERSION if galleries.parsed(image) is not None else None
