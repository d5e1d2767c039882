"""The store at a URL. To open one loads what it needs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from vmrunner.lib.store_url import StoreUrl
from vmrunner.store.base import ObjectStore

#: Scheme → what its endpoint is called by obstore.
_ENDPOINT: Final = {"s3": "endpoint", "gs": "base_url", "az": "endpoint"}
#: Begins the names of variables from which obstore takes credentials by itself.
_READ: Final = ("AWS_", "AZURE_", "GOOGLE_")


def open_store(url: str, *, endpoint: str = "", region: str = "") -> ObjectStore:
    """The store at a URL; nothing is asked of it yet. Raises StoreError."""
    parsed = StoreUrl.parse(url)
    if parsed.scheme == "file":
        from vmrunner.store.files import FileStore

        return FileStore(Path(parsed.path))
    _drop_empty()
    from vmrunner.store.cloud import CloudStore

    config: dict[str, Any] = {}
    if endpoint:
        config[_ENDPOINT[parsed.scheme]] = endpoint
    if parsed.scheme == "s3":
        config["checksum_algorithm"] = "SHA256"  # S3 checks what it got
        if region:
            config["region"] = region
    return CloudStore(url, config, allow_http=endpoint.startswith("http://"))


def _drop_empty() -> None:
    """Take variables without a value out of the environment: all SDKs take such a one for none, and
    obstore for an empty key, with which it signs."""
    for name in [name for name, value in os.environ.items() if not value]:
        if name.startswith(_READ):
            del os.environ[name]
