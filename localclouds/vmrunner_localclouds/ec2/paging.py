"""Pages, as EC2 cuts them: by item, at most 1,000, and a token that leads on."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from moto.core.responses import ActionResult

from vmrunner_localclouds.ec2.api_error import Ec2Refusal
from vmrunner_localclouds.ec2.vendor_limits import LIMITS

if TYPE_CHECKING:
    from vmrunner_localclouds.ec2.cloud import LocalCloud

T = TypeVar("T")

_LEAST: Final = 5
_MOST: Final = int(LIMITS["items of a page"].value)


def paged(response: Any, found: Sequence[T]) -> tuple[list[T], str | None]:
    """The part that the request asks for, and the token of the next."""
    most, token = response._get_param("MaxResults"), response._get_param("NextToken")
    start = _read(token) if token else 0
    if most is None:
        return list(found[start:]), None
    if not _LEAST <= int(most) <= _MOST:
        text = f"Value ( {most} ) for parameter maxResults is invalid. Expecting {_LEAST}-{_MOST}."
        raise Ec2Refusal("InvalidParameterValue", text)
    end = start + int(most)
    return list(found[start:end]), _write(end) if end < len(found) else None


def cut(key: str) -> Callable[[LocalCloud, Any, Callable[[Any], ActionResult]], ActionResult]:
    """A handler that cuts moto's list under `key`."""

    def handler(_: LocalCloud, response: Any, original: Callable[[Any], ActionResult]) -> Any:
        result: Any = original(response).result
        part, token = paged(response, result[key])
        return ActionResult({key: part, "NextToken": token})

    return handler


def _write(at: int) -> str:
    return base64.urlsafe_b64encode(f"at:{at}".encode()).decode()


def _read(token: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(token).decode().removeprefix("at:"))
    except (binascii.Error, ValueError):
        raise Ec2Refusal("InvalidNextToken", "The token is not valid.") from None
