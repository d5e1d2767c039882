"""Names, tags, places and users: what the service refuses of them."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from vmrunner_localclouds.azure import fixtures
from vmrunner_localclouds.azure.api_error import ArmRefusal, Json, invalid, missing

TAGS: Final = 50
_KEY: Final = 512
_VALUE: Final = 256
_RESERVED: Final = frozenset("<>%&\\?/")
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9_])?")
_CHILD: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,78}[A-Za-z0-9_])?")
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.IGNORECASE)
_USERS: Final = frozenset(
    (  # noqa: SIM905 - forty lines otherwise
        "administrator admin user user1 test user2 test1 user3 admin1 1 123 a actuser adm admin2 "
        "aspnet backup console david guest john owner root server sql support support_388945a0 "
        "sys test2 test3 user4 user5"
    ).split(" ")
)
CUSTOM_DATA: Final = 64 * 1024 - 1  # bytes, before base64


def check_tags(tags: Json | None) -> None:
    """Raises `ArmRefusal` for tags that no resource may have."""
    tags = tags or {}
    if len(tags) > TAGS:
        text = f"The number of tags '{len(tags)}' exceeds the maximum allowed '{TAGS}'."
        raise ArmRefusal(400, "InvalidTagCount", text)
    for name, value in tags.items():
        if not name or len(name) > _KEY:
            text = f"The tag name '{name}' is empty or has more than {_KEY} characters."
            raise ArmRefusal(400, "InvalidTagNameLength", text)
        if _RESERVED & set(name) or any(ord(sign) < 32 for sign in name):
            text = f"The tag names '{name}' have reserved characters '<,>,%,&,\\,?,/' or control "
            raise ArmRefusal(400, "InvalidTagNameCharacters", f"{text}characters.")
        if len(value) > _VALUE:
            text = f"Tag value too large. Following tag value '{value[:40]}…' exceeded the maximum "
            text += f"length. Maximum allowed length for tag value - '{_VALUE}' characters."
            raise ArmRefusal(400, "InvalidTagValueLength", text)


def check_vm_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        text = "Linux host name cannot exceed 64 characters in length or contain the following "
        text += "characters: ` ~ ! @ # $ % ^ & * ( ) = + _ [ ] { } \\ | ; : ' \" , < > / ?."
        raise invalid("name", f"'{name}': {text}")


def check_child_name(name: str, kind: str) -> None:
    if not _CHILD.fullmatch(name):
        text = f"Resource name {name} is invalid. The name can be up to 80 characters long."
        raise ArmRefusal(400, "InvalidResourceName", f"{text} It is a {kind}.")


def place(body: Json, kind: str) -> str:
    """The location of a new resource, as it is written here. Raises `ArmRefusal`."""
    location = str(body.get("location", "")).replace(" ", "").lower()
    if not location:
        raise ArmRefusal(400, "LocationRequired", "The location property is required.")
    if location not in fixtures.LOCATIONS:
        text = f"The provided location '{body['location']}' is not available for resource type "
        text += f"'{kind}'. List of available regions for the resource type is "
        regions = ",".join(fixtures.LOCATIONS)
        raise ArmRefusal(400, "LocationNotAvailableForResourceType", f"{text}'{regions}'.")
    return location


def check_zones(body: Json, location: str, what: str) -> None:
    zones = body.get("zones") or []
    supported = fixtures.LOCATIONS[location]
    if len(zones) > 1:
        raise invalid("zones", f"{what} can be in one zone only.")
    if zones and zones[0] not in list(supported):
        text = f"The zone(s) '{zones[0]}' for resource '{what}' is not supported. The supported "
        text += f"zones for location '{location}' are '{','.join(supported)}'"
        raise ArmRefusal(400, "InvalidAvailabilityZone", text)


def custom_data(profile: Json) -> bytes:
    """The user-data of a VM. Raises `ArmRefusal`."""
    return _decoded(profile.get("customData"), "osProfile.customData", "Custom data in OSProfile")


def user_data(properties: Json) -> bytes:
    return _decoded(properties.get("userData"), "userData", "User data")


def _decoded(text: str | None, path: str, what: str) -> bytes:
    try:
        data = base64.b64decode(text or "", validate=True)
    except binascii.Error:
        data = None
    if data is None or len(data) > CUSTOM_DATA:
        message = (
            f"{what} must be in Base64 encoding and with a maximum length of 87380 characters."
        )
        raise invalid(path, message)
    return data


def check_os(profile: Json | None) -> None:
    """Raises `ArmRefusal` for a guest that allows no login, or whose user is not allowed."""
    if profile is None:
        raise missing("osProfile")
    for field in ("computerName", "adminUsername"):
        if not profile.get(field):
            raise missing(f"osProfile.{field}")
    user = profile["adminUsername"]
    if user.lower() in _USERS or not _USER.fullmatch(user):
        raise invalid("osProfile.adminUsername", "The Admin Username specified is not allowed.")
    check_vm_name(profile["computerName"])
    linux = profile.get("linuxConfiguration") or {}
    keys = (linux.get("ssh") or {}).get("publicKeys") or []
    if linux.get("disablePasswordAuthentication") and not keys:
        text = "Authentication using either SSH or by user name and password must be enabled in "
        raise invalid("linuxConfiguration", f"{text}Linux profile.")
    if not linux.get("disablePasswordAuthentication") and not profile.get("adminPassword"):
        raise missing("osProfile.adminPassword")
    for public_key in keys:
        _check_key(public_key, user)


def _check_key(public_key: Json, user: str) -> None:
    path = f"/home/{user}/.ssh/authorized_keys"
    if public_key.get("path") != path:
        text = "Destination path for SSH public keys is currently limited to its default value "
        text += f"{path} due to a known issue in Linux provisioning agent."
        raise invalid("linuxConfiguration.ssh.publicKeys.path", text)
    form = str(public_key.get("keyData", "")).split()
    if len(form) < 2 or form[0] not in ("ssh-rsa", "ssh-ed25519"):
        text = "The value of parameter linuxConfiguration.ssh.publicKeys.keyData is invalid."
        raise invalid("linuxConfiguration.ssh.publicKeys.keyData", text)
