"""Options of Compute Engine, checked as far as that needs no network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from vmrunner.model import Network, NetworkPolicy
from vmrunner.providers.common.capacity_pools import Spot
from vmrunner.providers.common.cloud_options import CloudOptions
from vmrunner.providers.gce.labels import OURS, PREFIX

#: What Compute Engine takes of labels on one resource.
LABELS: Final = 64
_KEY: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_VALUE: Final = re.compile(r"[a-z0-9_-]{0,63}")
_PROJECT: Final = re.compile(r"(?:[a-z][a-z0-9.-]*:)?[a-z][a-z0-9-]{4,61}[a-z0-9]")
_REGION: Final = re.compile(r"[a-z]+-[a-z]+\d+")
_ZONE: Final = re.compile(r"[a-z]+-[a-z]+\d+-[a-z]")
_ENDPOINT: Final = re.compile(r"https?://[^/\s]+/?")

#: What `packer/` and `vmrunner image build` put their images into.
FAMILY: Final = "vmrunner"


@dataclass(frozen=True, kw_only=True, slots=True)
class GceOptions(CloudOptions):
    """Options of one provider. Without a project nothing can be asked, without zones nothing is
    launched."""

    project: str | None = None
    zones: tuple[str, ...] = ()
    used: tuple[str, ...] = ()  # other zones in which it ever launched: looked at too
    image: str | None = None  # a link, an image's name, or family/NAME; None: our own family
    machine_types: tuple[str, ...] = ("e2-standard-2",)
    network: str = "global/networks/default"
    subnetwork: str | None = None
    network_tags: tuple[str, ...] = ()  # firewall rules go by them
    network_tags_none: tuple[str, ...] = ()  # of `network: none`, in place of the others
    spot: Spot | None = None
    address: Literal["public", "private"] = "public"
    disk_type: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    service_account: str | None = None
    guard: str | None = None  # the region in which the guard was installed
    api_endpoint: str | None = None

    @property
    def every_zone(self) -> tuple[str, ...]:
        """Return all zones that are looked at, those that launch first."""
        return tuple(dict.fromkeys((*self.zones, *self.used)))

    def tags_for(self, network: NetworkPolicy) -> tuple[str, ...]:
        """Return the network tags of a VM of this network."""
        closed = network is Network.NONE and self.network_tags_none
        return closed or self.network_tags

    @property
    def plain(self) -> bool:
        """True if the endpoint is without TLS. No credentials go there."""
        return bool(self.api_endpoint) and str(self.api_endpoint).startswith("http://")

    def check(self) -> None:
        """Raises `ConfigError` with the field, its value and the fix."""
        if self.project is None:
            raise self._wrong("project", "none", "the id of a project, such as acme-ci")
        if not _PROJECT.fullmatch(self.project):
            raise self._wrong("project", repr(self.project), "the id of a project: acme-ci")
        for zone in self.zones:
            if not _ZONE.fullmatch(zone):
                raise self._wrong("zones", repr(zone), "zones such as europe-west1-b")
        if self.guard is not None and not _REGION.fullmatch(self.guard):
            raise self._wrong("guard", repr(self.guard), "the region of its function: europe-west1")
        if not self.machine_types:
            raise self._wrong("machine_types", "[]", "name at least one, such as e2-standard-2")
        if self.api_endpoint is not None and not _ENDPOINT.fullmatch(self.api_endpoint):
            raise self._wrong("api_endpoint", repr(self.api_endpoint), "one such as https://HOST")
        self._check_labels()

    def check_launch(self) -> None:
        """Check what only a launch needs. Raises ConfigError."""
        if not self.zones:
            raise self._wrong("zones", "none", "name at least one; their order is the fallback's")

    def _check_labels(self) -> None:
        most = LABELS - OURS
        if len(self.labels) > most:
            raise self._wrong("labels", f"{len(self.labels)} of them", f"there is room for {most}")
        for key, value in self.labels.items():
            if key.startswith(PREFIX):
                raise self._wrong("labels", repr(key), "vmrunner sets this one itself")
            if not _KEY.fullmatch(key):
                fix = "a lower-case letter, then at most 62 of a-z, 0-9, _ and -"
                raise self._wrong("labels", repr(key[:70]), fix)
            if not _VALUE.fullmatch(value):
                fix = "at most 63 of a-z, 0-9, _ and -"
                raise self._wrong(f"labels.{key}", repr(value[:70]), fix)
