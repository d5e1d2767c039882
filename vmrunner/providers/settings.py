"""Base of the tables of providers in the configuration. Each driver has its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vmrunner.lib.config_section import Bytes, Flag, Seconds, Section

__all__ = ["Bytes", "Flag", "LocalSettings", "ProviderSettings", "Seconds"]


class ProviderSettings(Section):
    """`kind` and `max_instances` are vmrunner's; all others go to the driver as options.

    Each table declares both itself, in the place where it wants them shown: `kind` as the `Literal`
    of the driver's kind, `max_instances` as in `providers.fake.settings`."""

    if TYPE_CHECKING:
        kind: str
        max_instances: int | None

    #: Keys that a project's file may set unasked. The others decide whose account, network and
    #: image get a build's source and secrets, and where credentials are sent.
    harmless: ClassVar[frozenset[str]] = frozenset({"kind", "max_instances"})
    #: True of a provider that boots images of this host's cache (`BootsLocalImages`).
    boots_local_images: ClassVar[bool] = False

    def options(self) -> dict[str, Any]:
        """The driver's own, those that are set."""
        return self.model_dump(exclude={"kind", "max_instances"}, exclude_none=True)


class LocalSettings(ProviderSettings):
    """Settings of a provider that boots images of this host's cache."""

    boots_local_images: ClassVar[bool] = True

    if TYPE_CHECKING:
        accel: str
        image: str | None
        disk: int | None
