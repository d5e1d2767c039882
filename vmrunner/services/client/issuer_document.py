"""One JSON document of an issuer of identity tokens. Asynchronous, as webhooks are: only so has a
request a limit as a whole."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from vmrunner.services.client import certificates

WHOLE: Final = 10.0  # seconds for a document, however it comes
BYTES: Final = 1 << 20  # of one


def fetch(url: str) -> Any:
    """The JSON document at a URL; no redirect is followed. Raises OSError, ValueError and httpx's
    errors."""
    try:
        return json.loads(asyncio.run(asyncio.wait_for(_body(url), WHOLE)))
    except TimeoutError:
        raise OSError(f"no whole answer within {WHOLE:.0f} s") from None


async def _body(url: str) -> bytes:
    import httpx

    plain = {"Accept-Encoding": "identity"}  # a short answer that unpacks to a long one is none
    async with (
        httpx.AsyncClient(
            timeout=WHOLE, verify=certificates.trusted(), follow_redirects=False, headers=plain
        ) as client,
        client.stream("GET", url) as answer,
    ):
        if answer.status_code != 200:
            raise OSError(f"it answered {answer.status_code}")
        found = bytearray()
        async for part in answer.aiter_raw():
            found += part
            if len(found) > BYTES:
                raise OSError(f"its answer is larger than {BYTES} bytes")
        return bytes(found)
