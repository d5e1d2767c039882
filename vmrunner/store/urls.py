"""URLs of stores. To check one loads nothing; to open one loads what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from vmrunner.store.base import ObjectStore

#: Scheme → what its endpoint is called by obstore.
_ENDPOINT: Final = {"s3": "endpoint", "gs": "base_url", "az": "endpoint"}
_FORM: Final = "such as file:///srv/vmrunner, s3://bucket/prefix, gs://bucket or az://container"


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A store's URL, taken apart. `path` is a directory, or the prefix in the bucket."""

    scheme: str
    bucket: str
    path: str

    @classmethod
    def parse(cls, text: str) -> StoreUrl:
        """Raises ValueError, whose text is the fix."""
        if not text.isprintable() or " " in text:
            raise ValueError("it holds a character that no URL has; write it as %XX")
        parts = urlsplit(text)
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError(f"a store takes no user, `?` or `#`; {_FORM}")
        path = unquote(parts.path)
        if ".." in path.split("/"):
            raise ValueError("a path without `..`")
        if parts.scheme == "file":
            if parts.netloc or not path.startswith("/") or not path.strip("/"):
                raise ValueError("an absolute directory, such as file:///srv/vmrunner")
            return cls("file", "", path)
        if parts.scheme not in _ENDPOINT or not parts.netloc:
            raise ValueError(f"not the URL of a store; {_FORM}")
        return cls(parts.scheme, parts.netloc, path.strip("/"))


def open_store(url: str, *, endpoint: str = "", region: str = "") -> ObjectStore:
    """The store at a URL; nothing is asked of it yet. Raises StoreError."""
    parsed = StoreUrl.parse(url)
    if parsed.scheme == "file":
        from vmrunner.store.files import FileStore

        return FileStore(Path(parsed.path))
    from vmrunner.store.cloud import CloudStore

    config: dict[str, Any] = {}
    if endpoint:
        config[_ENDPOINT[parsed.scheme]] = endpoint
    if parsed.scheme == "s3":
        config["checksum_algorithm"] = "SHA256"  # S3 checks what it got
        if region:
            config["region"] = region
    return CloudStore(url, config, allow_http=endpoint.startswith("http://"))
