"""Checks of a request that EC2 and Scheduler make before they do anything, and moto lets pass."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from vmrunner_localclouds.ec2.api_error import Ec2Refusal
from vmrunner_localclouds.ec2.vendor_limits import LIMITS

if TYPE_CHECKING:
    from moto.ec2.models import EC2Backend

    from vmrunner_localclouds.ec2.requests import Ec2Request

USER_DATA: Final = int(LIMITS["user data, bytes"].value)  # before they are encoded
TAGGABLE: Final = ("instance", "volume", "network-interface", "spot-instances-request")
_KEY = int(LIMITS["characters of a tag's key"].value)
_VALUE = int(LIMITS["characters of a tag's value"].value)
_TAGS = int(LIMITS["tags of a resource"].value)
_TOKEN = int(LIMITS["characters of a client token"].value)
_HOPS = int(LIMITS["hops of a metadata answer"].value)
_IDS = int(LIMITS["ids of a termination"].value)
_FILTERS = int(LIMITS["filters of a request"].value)
_VALUES = int(LIMITS["values of a filter"].value)
_FILTER_VALUE = int(LIMITS["characters of a filter's value"].value)
_SCHEDULE = int(LIMITS["characters of a schedule's name"].value)
_GROUP = int(LIMITS["characters of a schedule's group"].value)
_EXPRESSION = int(LIMITS["characters of a schedule's expression"].value)
_SCHEDULES = int(LIMITS["schedules of a page"].value)
_BURSTABLE: Final = re.compile(r"t\d")


def check_launch(backend: EC2Backend, params: Any) -> None:
    """Raises `Ec2Refusal` with the code that EC2 has for it."""
    _image(backend, str(params.get("ImageId", "")))
    data = params.get("UserData")
    if data is not None and len(_decoded(data)) > USER_DATA:
        raise _bad("InvalidParameterValue", f"User data is limited to {USER_DATA} bytes")
    token = str(params.get("ClientToken", ""))
    if len(token) > _TOKEN:
        raise _bad("InvalidParameterValue", f"ClientToken is limited to {_TOKEN} characters")
    hops = int((params.get("MetadataOptions") or {}).get("HttpPutResponseHopLimit") or 1)
    if not 1 <= hops <= _HOPS:
        raise _bad("InvalidParameterValue", f"HttpPutResponseHopLimit is from 1 to {_HOPS}")
    instance_types = backend.describe_instance_types()
    kind = params.get("InstanceType", "")
    if kind not in {t["InstanceType"] for t in instance_types}:
        raise _bad("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
    if params.get("CreditSpecification") and not _BURSTABLE.match(kind):
        text = f"The {kind} instance type does not support the credit specification."
        raise _bad("InvalidParameterCombination", text)
    spot = bool(params.get("InstanceMarketOptions"))
    if spot and params.get("DisableApiTermination"):
        text = "Termination protection is not supported on Spot Instances."
        raise _bad("InvalidParameterCombination", text)
    for spec in params.get("TagSpecifications") or []:
        _tags(spec, spot=spot)


def check_ids(ids: Sequence[str]) -> None:
    """Raises `Ec2Refusal` for more instances than one termination takes."""
    if len(ids) > _IDS:
        raise _bad("InvalidParameterValue", f"More than {_IDS} instance IDs specified.")


def check_filters(request: Ec2Request) -> None:
    """Raises `Ec2Refusal` for more filters or values than a request takes, or for a long one."""
    number = 1
    while f"Filter.{number}.Name" in request.params:
        values = request.all(f"Filter.{number}.Value")
        if number > _FILTERS or len(values) > _VALUES:
            raise _bad("FilterLimitExceeded", f"At most {_FILTERS} filters of {_VALUES} values.")
        if any(len(value) > _FILTER_VALUE for value in values):
            text = f"A filter's value has at most {_FILTER_VALUE} characters."
            raise _bad("InvalidParameterValue", text)
        number += 1


def check_schedule(group: str, name: str, expression: str) -> None:
    """Raises `Ec2Refusal` for what Scheduler's model does not allow in a schedule."""
    for text, most, field in (
        (group, _GROUP, "groupName"),
        (name, _SCHEDULE, "name"),
        (expression, _EXPRESSION, "scheduleExpression"),
    ):
        _check_length(text, most, field)


def check_group(name: str) -> None:
    """Raises `Ec2Refusal` for a name that a group of schedules cannot have."""
    _check_length(name, _GROUP, "name")


def check_schedules(request: Ec2Request) -> None:
    """Raises `Ec2Refusal` for a page of schedules that is too long."""
    if not 1 <= (size := int(request.params.get("MaxResults", 1))) <= _SCHEDULES:
        raise _bad("ValidationException", f"maxResults {size} is not from 1 to {_SCHEDULES}")


def _check_length(text: str, most: int, field: str) -> None:
    if not 1 <= len(text) <= most:
        raise _bad("ValidationException", f"{field} must have 1 to {most} characters")


def _decoded(data: Any) -> bytes:
    import base64

    return base64.b64decode(str(data))


def _image(backend: EC2Backend, image: str) -> None:
    if not re.fullmatch(r"ami-[0-9a-f]{8,17}", image):
        raise _bad("InvalidAMIID.Malformed", f'Invalid id: "{image}"')
    if image not in backend.amis:
        raise _bad("InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist")


def _tags(spec: Any, *, spot: bool) -> None:
    kind = spec.get("ResourceType", "")
    if kind not in TAGGABLE or (kind == "spot-instances-request" and not spot):
        text = f"'{kind}' is not a valid taggable resource type for this operation."
        raise _bad("InvalidParameterValue", text)
    tags = spec.get("Tags") or []
    if len(tags) > _TAGS:
        raise _bad("TagLimitExceeded", f"More than {_TAGS} tags specified.")
    for tag in tags:
        key, value = tag.get("Key", ""), tag.get("Value", "")
        if key.lower().startswith("aws:"):
            raise _bad(
                "InvalidParameterValue", f"Tag keys starting with 'aws:' are reserved: {key}"
            )
        if not 0 < len(key) <= _KEY:
            raise _bad("InvalidParameterValue", f"Tag key exceeds the maximum length of {_KEY}")
        if len(value) > _VALUE:
            raise _bad("InvalidParameterValue", f"Tag value exceeds the maximum length of {_VALUE}")


def _bad(code: str, message: str) -> Ec2Refusal:
    return Ec2Refusal(code, message)
