"""One signed request to a webhook.

Asynchronous, and nothing else here is: only so has a request a limit as a whole. A receiver that
sends a byte every few seconds passes all others.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from importlib.metadata import version
from typing import Final

from vmrunner.errors import ConfigError
from vmrunner.services.client import certificates

CONNECT: Final = 5.0  # seconds
WHOLE: Final = 15.0  # … for a request, however it is spent
_STANDARD: Final = b"whsec_"
TOLD: Final = 300  # characters of why it failed, which may have been written by the receiver


def signature(key: bytes, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 over the timestamp, a dot and the body, as it is sent."""
    return "sha256=" + hmac.new(key, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def standard_signature(key: bytes, name: str, timestamp: str, body: bytes) -> str:
    """The signature of Standard Webhooks (v1): HMAC-SHA256 in base64 over id, timestamp and body,
    with dots between. Raises ConfigError for a `whsec_` secret that is not base64."""
    signed = b".".join((name.encode(), timestamp.encode(), body))
    digest = hmac.new(standard_key(key), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def standard_key(key: bytes) -> bytes:
    """The bytes that sign by Standard Webhooks: of `whsec_…` what it encodes, else the secret
    itself. Raises ConfigError."""
    if not key.startswith(_STANDARD):
        return key
    text = key.removeprefix(_STANDARD)
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise ConfigError(
            "a secret that begins with whsec_ goes on in base64", hint="openssl rand -base64 32"
        ) from None


def post(url: str, key: bytes, *, event: str, name: str, body: bytes, now: float) -> str:
    """Send the event of this name once. Return why it was not taken; empty when it was. No redirect
    is followed: the signed body goes where the operator said, or nowhere."""
    timestamp = str(int(now))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"vmrunner/{version('vmrunner')}",
        "Vmrunner-Event": event,
        "Vmrunner-Event-Id": name,
        "Vmrunner-Timestamp": timestamp,
        "Vmrunner-Signature": signature(key, timestamp, body),
        "webhook-id": name,
        "webhook-timestamp": timestamp,
        "webhook-signature": standard_signature(key, name, timestamp, body),
    }
    import httpx2

    try:
        code = asyncio.run(asyncio.wait_for(_code(url, headers, body), WHOLE))
    except TimeoutError:
        return f"no answer within {WHOLE:.0f} s"
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        return f"{type(error).__name__}: {error}".rstrip(": ")[:TOLD]
    if 300 <= code < 400:
        return f"it answered {code}, and no redirect is followed"
    return "" if 200 <= code < 300 else f"it answered {code}"


async def _code(url: str, headers: dict[str, str], body: bytes) -> int:
    """Return the answer's code; its body is not read."""
    import httpx2

    limits = httpx2.Timeout(WHOLE, connect=CONNECT)
    trusted = certificates.trusted()
    async with (
        httpx2.AsyncClient(timeout=limits, verify=trusted, follow_redirects=False) as client,
        client.stream("POST", url, headers=headers, content=body) as answer,
    ):
        return answer.status_code
