"""Options of Azure, checked as far as that needs no network."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

from vmrunner.model import TAG, Network, NetworkPolicy
from vmrunner.providers.common.capacity_pools import Spot
from vmrunner.providers.common.cloud_options import CloudOptions

#: What Azure takes of tags on one resource, and how many of them are vmrunner's own.
TAGS: Final = 50
OURS: Final = 8
_FORBIDDEN: Final = re.compile(r"[<>%&\\?/\x00-\x1f]")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_GROUP: Final = re.compile(r"[\w().-]{0,89}[\w()-]")
_LOCATION: Final = re.compile(r"[a-z0-9]+")
_NETWORK: Final = r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft.Network"
_SUBNET: Final = re.compile(
    rf"[^/\s]+/[^/\s]+|{_NETWORK}/virtualNetworks/[^/]+/subnets/[^/]+", re.IGNORECASE
)
_FIREWALL: Final = re.compile(rf"[^/\s]+|{_NETWORK}/networkSecurityGroups/[^/]+", re.IGNORECASE)
_ENDPOINT: Final = re.compile(r"https?://[^/\s?#@]+/?")

AZURE: Final = "https://management.azure.com"


@dataclass(frozen=True, kw_only=True, slots=True)
class AzureOptions(CloudOptions):
    """Options of one provider. A subscription and a group are needed to ask anything; a location
    and a subnet, to launch."""

    subscription: str | None = None
    resource_group: str | None = None
    location: str | None = None
    zones: tuple[str, ...] = ()
    used: tuple[str, ...] = ()  # other groups in which it ever launched: looked at too
    image: str | None = None  # a name, an id, PUBLISHER:OFFER:SKU:VERSION; None: the promoted one
    images: Literal["gallery", "managed"] | None = None  # that are made; None: by `image`
    machine_types: tuple[str, ...] = ("Standard_D2s_v5",)
    subnet: str | None = None
    security_group: str | None = None
    security_group_none: str | None = None  # of `network: none`, in place of the other
    spot: Spot | None = None
    address: Literal["public", "private"] = "public"
    disk_type: str = "StandardSSD_LRS"
    os_disk: Literal["managed", "ephemeral"] = "managed"
    tags: Mapping[str, str] = field(default_factory=dict)
    guard: str | None = None  # the group in which the guard was installed
    endpoint: str | None = None

    @property
    def group(self) -> str:
        """Return the resource group, whose name Azure takes in any case."""
        return str(self.resource_group).lower()

    @property
    def groups(self) -> tuple[str, ...]:
        """Return all groups that are looked at, the one that launches first."""
        return tuple(dict.fromkeys((self.group, *(group.lower() for group in self.used))))

    @property
    def base(self) -> str:
        """Return the endpoint, without a slash at its end."""
        return (self.endpoint or AZURE).rstrip("/")

    @property
    def plain(self) -> bool:
        """True if the endpoint is without TLS, on this host. No credentials go there."""
        return self.base.startswith("http://")

    def is_home(self, url: str) -> bool:
        """True if a URL is the endpoint's: its answers may name the port, as in next pages. No
        other host is asked with these credentials."""
        return _origin(url) == _origin(self.base) is not None

    def id(self, path: str) -> str:
        """Return the id of something in the group: `path` below `providers`, or an id already."""
        if path.startswith("/"):
            return path
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}/providers/{path}"

    @property
    def subnet_id(self) -> str:
        network, _, name = str(self.subnet).partition("/")
        if not network:
            return str(self.subnet)
        return self.id(f"Microsoft.Network/virtualNetworks/{network}/subnets/{name}")

    def security_group_id(self, network: NetworkPolicy = Network.OPEN) -> str | None:
        """Return the id of the security group of a VM of this network."""
        closed = network is Network.NONE and self.security_group_none
        group = closed or self.security_group
        if group is None or group.startswith("/"):
            return group
        return self.id(f"Microsoft.Network/networkSecurityGroups/{group}")

    def place(self, zone: str) -> str:
        """Return the place of offers in a zone: `westeurope-1`; `westeurope` for no zone."""
        return f"{self.location}-{zone}" if zone else str(self.location)

    def check(self) -> None:
        """Raises `ConfigError` with the field, its value and the fix."""
        if not _UUID.fullmatch(self.subscription or ""):
            value = repr(self.subscription) if self.subscription else "none"
            raise self._wrong("subscription", value, "its id: az account show --query id")
        if not _GROUP.fullmatch(self.resource_group or ""):
            value = repr(self.resource_group) if self.resource_group else "none"
            raise self._wrong("resource_group", value, "the name of a group of its own")
        if self.location is not None and not _LOCATION.fullmatch(self.location):
            raise self._wrong("location", repr(self.location), "one such as westeurope")
        for zone in self.zones:
            if not (zone.isascii() and zone.isdigit()):
                raise self._wrong("zones", repr(zone), "zones such as 1")
        if not self.machine_types:
            raise self._wrong("machine_types", "[]", "name at least one, such as Standard_D2s_v5")
        if self.subnet is not None and not _SUBNET.fullmatch(self.subnet):
            raise self._wrong("subnet", repr(self.subnet), "NETWORK/SUBNET, or the subnet's id")
        self._check_firewalls()
        if self.guard is not None and not _GROUP.fullmatch(self.guard):
            raise self._wrong("guard", repr(self.guard), "the name of the guard's resource group")
        if not _ENDPOINT.fullmatch(self.endpoint or AZURE):
            raise self._wrong("endpoint", repr(self.endpoint), "one such as https://HOST")
        if self.plain and not _is_loopback(urlsplit(self.base).hostname or ""):
            raise self._wrong("endpoint", repr(self.endpoint), "without TLS only to 127.0.0.1")
        self._check_tags()

    def check_launch(self) -> None:
        """Check what only a launch needs. Raises ConfigError."""
        if self.location is None:
            raise self._wrong("location", "none", "the region to launch in, such as westeurope")
        if self.subnet is None:
            raise self._wrong("subnet", "none", "NETWORK/SUBNET: a subnet of the builds' own")

    def _check_firewalls(self) -> None:
        for key in ("security_group", "security_group_none"):
            named = getattr(self, key)
            if named is not None and not _FIREWALL.fullmatch(named):
                raise self._wrong(key, repr(named), "its name, or its id")

    def _check_tags(self) -> None:
        most = TAGS - OURS
        if len(self.tags) > most:
            raise self._wrong("tags", f"{len(self.tags)} of them", f"there is room for {most}")
        names = [key.lower() for key in self.tags]  # in which Azure sees no case
        for key, value in self.tags.items():
            if names.count(key.lower()) > 1:
                raise self._wrong("tags", repr(key[:70]), "one of this name, in whatever case")
            if key.lower() == "name" or key.lower().startswith(TAG):
                raise self._wrong("tags", repr(key), "vmrunner sets this one itself")
            if not key or len(key) > 512 or _FORBIDDEN.search(key):
                raise self._wrong(
                    "tags", repr(key[:70]), r"at most 512 characters, none of <>%&\?/"
                )
            if len(value) > 256:
                raise self._wrong(f"tags.{key}", repr(value[:70]), "at most 256 characters")


def _origin(url: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port of a URL; None: it leads nowhere."""
    try:
        parsed = urlsplit(url)
        port = parsed.port or {"https": 443, "http": 80}.get(parsed.scheme)
    except ValueError:
        return None
    return (parsed.scheme, parsed.hostname, port) if parsed.hostname else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
