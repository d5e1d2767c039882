"""A VM's serial log, which Azure keeps in a blob: its answer says where. The place is believed only
where a host of Azure's serves it, and no credentials go there."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import requests

from vmrunner.errors import Uncertain
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.common.console import CONSOLE_BYTES

#: Where storage accounts are, also those of Azure's own, in each of its clouds.
_BLOBS: Final = (
    ".blob.core.windows.net",
    ".blob.core.chinacloudapi.cn",
    ".blob.core.usgovcloudapi.net",
    ".blob.storage.azure.net",
)
_MOST: Final = 8 << 20  # bytes that are read of a log to find its end
_TIMEOUT: Final = 20.0


def read(options: AzureOptions, url: str) -> str:
    """Return the end of the log. Raises `Uncertain`."""
    if not url:
        return ""
    if not is_trusted(options, url):
        raise Uncertain(f"the serial log is at {urlsplit(url).hostname}, which is not Azure's")
    end = bytearray()
    try:
        with requests.Session() as session:
            session.trust_env = not options.plain  # a proxy is for what is elsewhere
            answer = session.get(url, timeout=_TIMEOUT, stream=True, allow_redirects=False)
            if answer.status_code == requests.codes.not_found:
                return ""  # it has said nothing yet
            answer.raise_for_status()
            remaining = _MOST
            for chunk in answer.iter_content(CONSOLE_BYTES):
                end = (end + chunk)[-CONSOLE_BYTES:]
                remaining -= len(chunk)
                if remaining <= 0:
                    break
    except requests.RequestException as error:
        raise Uncertain(f"the serial log: {type(error).__name__}") from error  # its URL is a key
    return end.decode(errors="replace")[-CONSOLE_BYTES:]


def is_trusted(options: AzureOptions, url: str) -> bool:
    """True if a host of Azure's, or the endpoint on this host, serves it."""
    if options.plain:
        return options.is_home(url)
    parsed = urlsplit(url)
    host = (parsed.hostname or "").lower()
    return parsed.scheme == "https" and parsed.port in (None, 443) and host.endswith(_BLOBS)
