"""Parts that the use cases are called with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmrunner.config.paths import Paths
    from vmrunner.config.settings import Settings
    from vmrunner.engine.context import EngineLimits
    from vmrunner.ledger import Ledger
    from vmrunner.runtime.background import BackgroundEngines
    from vmrunner.runtime.engine_host import EngineHost
    from vmrunner.runtime.ledger_opener import LedgerOpener
    from vmrunner.runtime.provider_set import ProviderSet
    from vmrunner.store.build_artifacts import ArtifactFiles
    from vmrunner.store.build_log import BuildLog
    from vmrunner.store.source_transfer import SourceTransfer


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceParts:
    """The parts of one configuration, as its services get them. What a new configuration changes
    is asked for each time. `close` lets go of what was opened."""

    ledgers: LedgerOpener
    providers: ProviderSet
    paths: Paths
    background: BackgroundEngines
    settings: Callable[[], Settings]
    limits: Callable[[], EngineLimits]
    sources: Callable[[], SourceTransfer]
    log: Callable[[str], BuildLog]
    artifact_files: Callable[[str], ArtifactFiles]
    host: Callable[[str | None], EngineHost]
    close: Callable[[], None]

    @property
    def ledger(self) -> Ledger:
        """The ledger, open."""
        return self.ledgers.open()
