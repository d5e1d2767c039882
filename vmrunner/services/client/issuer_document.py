"""One JSON document of an issuer of identity tokens. Asynchronous, as webhooks are: only so has a
request a limit as a whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from vmrunner.services.client import certificates

WHOLE: Final = 10.0  # seconds for a document, however it comes
BYTES: Final = 1 << 20  # of one


def fetch(url: str) -> Any:
    """The JSON document at a URL; no redirect is followed. Raises OSError, ValueError and httpx2's
    errors."""
    return _document("GET", url, (200,))


def post(url: str, form: Mapping[str, str], user: tuple[str, str] | None = None) -> Any:
    """The JSON document that a form is answered with, also where it tells of a fault. `user`: a
    name and a password. Raises as `fetch`."""
    return _document("POST", url, (200, 400, 401), data=dict(form), auth=user)


def _document(method: str, url: str, statuses: tuple[int, ...], **options: Any) -> Any:
    body = _body(method, url, statuses, options)
    try:
        return json.loads(asyncio.run(asyncio.wait_for(body, WHOLE)))
    except TimeoutError:
        raise OSError(f"no whole answer within {WHOLE:.0f} s") from None


async def _body(
    method: str, url: str, statuses: tuple[int, ...], options: Mapping[str, Any]
) -> bytes:
    import httpx2

    # A short answer that unpacks to a long one is none.
    plain = {"Accept-Encoding": "identity", "Accept": "application/json"}
    async with (
        httpx2.AsyncClient(
            timeout=WHOLE, verify=certificates.trusted(), follow_redirects=False, headers=plain
        ) as client,
        client.stream(method, url, **options) as answer,
    ):
        if answer.status_code not in statuses:
            raise OSError(f"it answered {answer.status_code}")
        found = bytearray()
        async for part in answer.aiter_raw():
            found += part
            if len(found) > BYTES:
                raise OSError(f"its answer is larger than {BYTES} bytes")
        return bytes(found)
