"""Parts that the routes work with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmrunner.config.settings import Paths, Settings
    from vmrunner.engine.context import EngineLimits
    from vmrunner.ledger import Ledger
    from vmrunner.runtime.ledger_opener import LedgerOpener
    from vmrunner.runtime.provider_set import ProviderSet
    from vmrunner.services.sandboxes import SandboxClient
    from vmrunner.services.submit import Submission
    from vmrunner.store.build_artifacts import ArtifactFiles
    from vmrunner.store.build_log import BuildLog


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerParts:
    """The composition of one server. What a new configuration changes is asked for each time."""

    ledgers: LedgerOpener
    providers: ProviderSet
    paths: Paths
    settings: Callable[[], Settings]
    limits: Callable[[], EngineLimits]
    submission: Callable[[], Submission]
    log: Callable[[str], BuildLog]
    artifact_files: Callable[[str], ArtifactFiles]
    sandbox: Callable[[str], SandboxClient]
    wake: Callable[[], object]
    now: Callable[[], float] = time.time

    @property
    def ledger(self) -> Ledger:
        return self.ledgers.open()
