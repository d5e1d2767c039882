"""Options of Kubernetes, checked as far as that needs no cluster."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from vmrunner.errors import ConfigError
from vmrunner.lib import units
from vmrunner.providers.common.cloud_options import CloudOptions, GiB

Runs = Literal["vmi", "pod"]

_SIZE: Final = re.compile(r"([1-9]\d{0,2})x([1-9]\d*(?:MiB|GiB))")
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_CLASS: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_DIGEST: Final = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
#: The wall that a configuration says is not there.
NO_WALL: Final = "none"
#: A build's room for files in a pod, where nothing is said.
DISK: Final = 20 * GiB
#: A public resolver: builds get the configuration's, and not the cluster's.
DNS: Final = ("9.9.9.9",)
#: So many of them a pod takes.
RESOLVERS: Final = 3


@dataclass(frozen=True, slots=True)
class Size:
    """A size of machine, as "2x4GiB"."""

    name: str
    cpus: int
    memory: int  # bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class KubernetesOptions(CloudOptions):
    """Options of one provider. Without an image nothing is launched. `image`: a reference of a
    containerDisk, or {"data_volume": {"claim": …, "size": …, "storage_class": …}}."""

    runs: Runs = "vmi"
    context: str | None = None
    kubeconfig: str | None = None
    namespace: str = "vmrunner"
    runtime_class: str | None = None
    wall: str | None = None
    image: str | Mapping[str, Any] | None = None
    unit_image: str | None = None
    sizes: tuple[str, ...] = ("2x4GiB",)
    dns: tuple[str, ...] = DNS
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    priority_class: str | None = None
    usd_hour: Mapping[str, float] = field(default_factory=dict)
    network_policy: Literal["probe", "never"] = "probe"
    cache_dir: Path | None = None

    @staticmethod
    def taken(options: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of these options, as a table of the configuration gives them."""
        tuples = {"sizes", "dns", "tolerations"} & options.keys()
        return {**options, **{name: tuple(options[name]) for name in tuples}}

    @property
    def machine_sizes(self) -> tuple[Size, ...]:
        """Return the sizes that are offered, in their order."""
        return tuple(size_of(name) for name in self.sizes)

    @property
    def volume(self) -> Mapping[str, Any] | None:
        """Return the table of the VM's disk, where that is a volume; None: a containerDisk."""
        found = self.image.get("data_volume") if isinstance(self.image, Mapping) else None
        return found if isinstance(found, Mapping) else None

    @property
    def probes_network(self) -> bool:
        """True where a probe shows whether network policies hold."""
        return self.network_policy == "probe" and self.unit_image is not None

    @property
    def image_name(self) -> str:
        """Name of the image in offers."""
        if self.runs == "pod":
            return self.unit_image or ""
        return f"claim/{self.volume['claim']}" if self.volume is not None else str(self.image or "")

    def check(self) -> None:
        """Raises `ConfigError` with the field, its value and the fix."""
        if self.runs not in ("vmi", "pod"):
            raise self._wrong("runs", repr(self.runs), "vmi or pod")
        if not _NAME.fullmatch(self.namespace):
            raise self._wrong("namespace", repr(self.namespace), "the name of one, as vmrunner")
        self._check_wall()
        self._check_sizes()
        if not self.dns:
            raise self._wrong("dns", "[]", "name whom builds ask for names, such as 9.9.9.9")
        if len(self.dns) > RESOLVERS:
            raise self._wrong("dns", f"{len(self.dns)} of them", "at most three: no pod takes more")
        for address in self.dns:
            try:
                ipaddress.ip_address(address)
            except ValueError:
                fix = "addresses, such as 9.9.9.9"
                raise self._wrong("dns", repr(address), fix) from None
        if isinstance(self.image, Mapping):
            self._check_volume(self.image)

    def check_launch(self) -> None:
        """Check what only a launch needs. Raises ConfigError."""
        key, value = ("unit_image", self.unit_image)
        if self.runs == "vmi":
            if self.image is None:
                raise self._wrong("image", "none", "a containerDisk: REGISTRY/NAME@sha256:…")
            key, value = "image", None if self.volume is not None else str(self.image)
        elif value is None:
            raise self._wrong(key, "none", "vmrunner image build --unit --push REGISTRY/NAME")
        if value is not None and not _DIGEST.fullmatch(value):
            fix = "name it by its digest, REGISTRY/NAME@sha256:…: a tag may be another tomorrow"
            raise self._wrong(key, repr(value), fix)

    # --- within ---

    def _check_wall(self) -> None:
        if self.wall is not None and self.wall != NO_WALL:
            raise self._wrong("wall", repr(self.wall), 'leave it out, or "none"')
        if self.runtime_class is not None and not _CLASS.fullmatch(self.runtime_class):
            raise self._wrong("runtime_class", repr(self.runtime_class), "the name of one")
        if self.runs == "pod" and not (self.runtime_class or self.wall == NO_WALL):
            fix = 'a class with a wall, such as kata-qemu or gvisor; or wall = "none"'
            raise self._wrong("runtime_class", "none: builds would share the node's kernel", fix)

    def _check_sizes(self) -> None:
        if not self.sizes:
            raise self._wrong("sizes", "[]", "name at least one, such as 2x4GiB")
        for name in self.sizes:
            if not _SIZE.fullmatch(name):
                raise self._wrong("sizes", repr(name), "CPUs x memory, such as 2x4GiB")
        for name, usd in self.usd_hour.items():
            if name not in self.sizes:
                raise self._wrong("usd_hour", repr(name), f"one of: {', '.join(self.sizes)}")
            if not 0 <= usd < 1e6:
                raise self._wrong(f"usd_hour.{name}", repr(usd), "USD an hour")

    def _check_volume(self, image: Mapping[str, Any]) -> None:
        table = image.get("data_volume")
        if set(image) != {"data_volume"} or not isinstance(table, Mapping):
            raise self._wrong("image", repr(dict(image)), "{ data_volume = { claim, size } }")
        if unknown := set(table) - {"claim", "size", "storage_class"}:
            fix = "claim, size and storage_class"
            raise self._wrong("image.data_volume", repr(min(unknown)), fix)
        for key in ("claim", "size"):
            if not isinstance(table.get(key), str):
                fix = "the claim that it is cloned from, and its size: 40GiB"
                raise self._wrong(f"image.data_volume.{key}", repr(table.get(key)), fix)
        try:
            units.size(table["size"])
        except ConfigError:
            fix = "a size, such as 40GiB"
            raise self._wrong("image.data_volume.size", repr(table["size"]), fix) from None


def size_of(name: str) -> Size:
    """The size that is called so. Raises ValueError."""
    found = _SIZE.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} is no size")
    return Size(name, int(found[1]), int(units.size(found[2])))


def quantity(count: int) -> str:
    """Bytes as Kubernetes writes them."""
    for unit, size in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if count % size == 0:
            return f"{count // size}{unit}"
    return str(count)
