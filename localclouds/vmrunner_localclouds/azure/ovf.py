"""Provisioning data of a VM, as Azure gives it on a disc: a file `ovf-env.xml`, with the user-data
in it, on a file system that every guest reads."""

from __future__ import annotations

import base64
import struct
from typing import Final
from xml.sax.saxutils import escape

from vmrunner_localclouds.azure.api_error import Json

_SECTOR: Final = 2048
_FILE: Final = b"OVF-ENV.XML;1"  # Linux shows it in lower case, and without the version
_ROOT: Final = 20  # the sectors before: nothing, two descriptors, two tables of paths

_FORM: Final = """\
<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1"
 xmlns:oe="http://schemas.dmtf.org/ovf/environment/1"
 xmlns:wa="http://schemas.microsoft.com/windowsazure">
 <wa:ProvisioningSection>
  <wa:Version>1.0</wa:Version>
  <wa:LinuxProvisioningConfigurationSet
   xmlns="http://schemas.microsoft.com/windowsazure"
   xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
   <wa:ConfigurationSetType>LinuxProvisioningConfiguration</wa:ConfigurationSetType>
   <wa:HostName>{host}</wa:HostName>
   <wa:UserName>{user}</wa:UserName>
   <wa:DisableSshPasswordAuthentication>{keyed}</wa:DisableSshPasswordAuthentication>
   <wa:CustomData>{data}</wa:CustomData>
  </wa:LinuxProvisioningConfigurationSet>
 </wa:ProvisioningSection>
 <wa:PlatformSettingsSection>
  <wa:Version>1.0</wa:Version>
  <wa:PlatformSettings>
   <wa:KmsServerHostname>azkms.core.windows.net</wa:KmsServerHostname>
   <wa:ProvisionGuestAgent>false</wa:ProvisionGuestAgent>
   <wa:PreprovisionedVm>false</wa:PreprovisionedVm>
  </wa:PlatformSettings>
 </wa:PlatformSettingsSection>
</Environment>
"""


def environment(profile: Json, data: bytes) -> bytes:
    """The file for a VM with this `osProfile` and user-data."""
    linux = profile.get("linuxConfiguration") or {}
    return _FORM.format(
        host=escape(profile["computerName"]),
        user=escape(profile["adminUsername"]),
        keyed=str(bool(linux.get("disablePasswordAuthentication"))).lower(),
        data=base64.b64encode(data).decode(),
    ).encode()


def disc(content: bytes) -> bytes:
    """An image of a disc (ISO 9660) with that one file."""
    sectors = -(-len(content) // _SECTOR)
    tables = [struct.pack(form, 1, 0, _ROOT, 1) + b"\0\0" for form in ("<BBIH", ">BBIH")]
    own_record, parent_record = (
        _record(name, _ROOT, _SECTOR, directory=True) for name in (b"\0", b"\1")
    )
    listing = own_record + parent_record + _record(_FILE, _ROOT + 1, len(content))
    return b"".join(
        (
            bytes(16 * _SECTOR),
            _padded(_descriptor(_ROOT + 1 + sectors, len(tables[0]), own_record)),
            _padded(b"\xffCD001\x01"),
            *map(_padded, tables),
            _padded(listing),
            content.ljust(sectors * _SECTOR, b"\0"),
        )
    )


def _descriptor(sectors: int, table: int, root: bytes) -> bytes:
    date = b"0" * 16 + b"\0"
    return b"".join(
        (
            b"\x01CD001\x01\0",
            b" " * 32,
            b"RD_RDFE_STABLE".ljust(32),  # the label of Azure's own
            bytes(8),
            _both("I", sectors),
            bytes(32),
            _both("H", 1) * 2,
            _both("H", _SECTOR),
            _both("I", table),
            struct.pack("<II", _ROOT - 2, 0),
            struct.pack(">II", _ROOT - 1, 0),
            root,
            b" " * (128 * 4 + 37 * 3),
            date * 4,
            b"\x01",
        )
    )


def _record(name: bytes, sector: int, size: int, *, directory: bool = False) -> bytes:
    pad = b"" if len(name) % 2 else b"\0"
    body = b"".join(
        (
            b"\0",
            _both("I", sector),
            _both("I", size),
            bytes(7),
            b"\x02" if directory else b"\0",
            b"\0\0",
            _both("H", 1),
            bytes([len(name)]),
            name + pad,
        )
    )
    return bytes([len(body) + 1]) + body


def _both(form: str, number: int) -> bytes:
    """Write a number in both orders of bytes."""
    return struct.pack(f"<{form}", number) + struct.pack(f">{form}", number)


def _padded(data: bytes) -> bytes:
    return data.ljust(_SECTOR, b"\0")
