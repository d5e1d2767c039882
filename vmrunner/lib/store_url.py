"""URLs of stores, checked. Nothing is loaded for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

_BUCKETS: Final = frozenset({"s3", "gs", "az"})
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
        if parts.scheme not in _BUCKETS or not parts.netloc:
            raise ValueError(f"not the URL of a store; {_FORM}")
        return cls(parts.scheme, parts.netloc, path.strip("/"))
