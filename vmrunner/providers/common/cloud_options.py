"""Options that every cloud has, and the checks that are the same in each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from vmrunner.errors import BadOrder, ConfigError

GiB: Final = 1024**3
#: Of the bases that images are built on.
ARCHITECTURE: Final = "x86_64"


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudOptions:
    """Options that any cloud has."""

    name: str
    installation: str
    disk: int | None = None  # bytes; None: as large as the image's

    def check_launch(self) -> None:
        """Raises `ConfigError` for what only a launch needs."""

    def demand_launch(self) -> None:
        """The same, in the words of an order: raises `BadOrder`."""
        try:
            self.check_launch()
        except ConfigError as error:
            raise BadOrder(str(error.args[0]), hint=error.hint) from error

    def disk_size(self, requested: int | None, image: str, least: int) -> int:
        """The bytes of a VM's disk. Raises `BadOrder` when the image does not fit."""
        wanted = requested or self.disk or least
        if wanted < least:
            raise BadOrder(f"disk = {wanted / GiB:g} GiB: image {image} needs {least / GiB:g} GiB")
        return wanted

    def builders_type(self, key: str, types: Mapping[str, Collection[str]]) -> str:
        """The first machine type, of those that option `key` names, that runs what images are built
        on; `types` has the architectures of each (none: it does not say). Raises `ConfigError`."""
        for name, architectures in types.items():
            if not architectures or ARCHITECTURE in architectures:
                return name
        names = ", ".join(types) or "none to be had"
        raise self._wrong(
            key,
            f"{names}: images are made for {ARCHITECTURE}",
            "name a type of that architecture too",
        )

    def _wrong(self, key: str, value: str, fix: str) -> ConfigError:
        return ConfigError(f"providers.{self.name}.{key}: {value}", hint=fix)
