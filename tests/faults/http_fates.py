"""What may befall a request to any cloud, in the words of one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from vmrunner_localclouds.common.faults import GARBAGE, LOST_ANSWER, LOST_REQUEST, RequestFate

from vmrunner.providers.fake import Fault


def fates(
    *, internal: Any, throttled: Any, no_room: Any, quota: Any, denied: Any
) -> Mapping[Fault, Any]:
    """What a fault of the cloud in memory is in this one."""
    return MappingProxyType(
        {
            Fault.OK: None,
            Fault.LOST_REQUEST: LOST_REQUEST,
            Fault.LOST_RESPONSE: LOST_ANSWER,
            Fault.SERVER_ERROR: internal,
            Fault.THROTTLE: throttled,
            Fault.NO_CAPACITY: no_room,
            Fault.QUOTA: quota,
            Fault.CREDENTIALS: denied,
            Fault.PARTIAL_PAGE: internal,
        }
    )


def troubles(
    internal: RequestFate, *others: RequestFate, throttled: tuple[RequestFate, ...]
) -> Mapping[str, tuple[Any, ...]]:
    """What may befall any request: those of a kind mean the same for who asks. `others`: more
    errors of the server's."""
    return MappingProxyType(
        {
            "unheard": (LOST_REQUEST,),
            "heard": tuple(
                fate._replace(happens=True) for fate in (LOST_ANSWER, internal, GARBAGE)
            ),
            "5xx": (internal, *others),
            "throttled": throttled,
            "garbage": (GARBAGE,),
        }
    )
