"""Parts that the routes work with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmrunner.runtime.service_parts import ServiceParts
from vmrunner.services.queue_reasons import KeptQueue

if TYPE_CHECKING:
    from vmrunner.services.entering import Entrance
    from vmrunner.services.sandboxes import SandboxClient
    from vmrunner.services.submit import Submission


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerParts(ServiceParts):
    """The composition of one server: what services get, and what callers from elsewhere need."""

    submission: Callable[[], Submission]
    sandbox: Callable[[str], SandboxClient]
    entrance: Callable[[str], Entrance]
    wake: Callable[[], object]
    now: Callable[[], float] = time.time
    queue: KeptQueue = field(default_factory=KeptQueue)
