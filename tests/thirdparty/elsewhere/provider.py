"""The port over a cloud in memory, which is another one in each process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from vmrunner.errors import ConfigError
from vmrunner.model import Finding, Level, Scope
from vmrunner.providers.fake import Cloud, FakeProvider
from vmrunner.providers.fake.provider import WallClock

USD_HOUR: Final[Mapping[str, float]] = {"big": 3600.0}


@dataclass(frozen=True, kw_only=True)
class ElsewhereOptions:
    """What can be said of one, with what holds where nothing is."""

    region: str = "north"
    memory: int = 2 << 30
    endpoint: str | None = None


class ElsewhereProvider(FakeProvider):
    """The fake cloud's, in scopes of its own."""

    kind = "elsewhere"

    def __init__(
        self, name: str, *, installation: str, cloud: Cloud | None = None, **options: Any
    ) -> None:
        self.options = ElsewhereOptions(**options)
        if self.options.endpoint == "":
            raise ConfigError(f"providers.{name}.endpoint: empty", hint="leave it out")
        super().__init__(
            name,
            cloud or Cloud(WallClock()),
            scopes=[Scope(self.kind, "account", self.options.region)],
            machine_types=["big"],
            usd_hour=0.0,
            page_size=2,
            installation=installation,
        )

    def check(self) -> Sequence[Finding]:
        where = f"{self.options.region} obeys {self.installation}"
        return (Finding(check="delete", level=Level.OK, message=where),)


class NamelessProvider(ElsewhereProvider):
    """The same over a cloud that has no place for a VM's name. Images are what is owned."""

    kind = "nameless"

    def __init__(self, name: str, *, cloud: Cloud | None = None, **options: Any) -> None:
        cloud = cloud or Cloud(WallClock())
        cloud.shows_names = False
        super().__init__(name, cloud=cloud, **options)
