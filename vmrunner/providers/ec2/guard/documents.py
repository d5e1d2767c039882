"""Documents that ship under `deploy/aws`, filled in: policies, and the function's code."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import string
import zipfile
from pathlib import Path
from typing import Any, Final

from vmrunner.lib import resources

#: The module in the function's archive, and what is called in it.
MODULE: Final = "guard"
HANDLER: Final = f"{MODULE}.handler"


def root() -> Path:
    return resources.path("deploy") / "aws"


def policy(name: str, /, **values: str) -> dict[str, Any]:
    """The policy `name` of `deploy/aws/policies`, for these values."""
    text = (root() / "policies" / f"{name}.json").read_text(encoding="utf-8")
    filled: dict[str, Any] = json.loads(string.Template(text).substitute(values))
    return filled


def source() -> bytes:
    return (root() / f"{MODULE}.py").read_bytes()


def archive() -> bytes:
    """The function's code: the same bytes for the same source, wherever it is made."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as file:
        entry = zipfile.ZipInfo(f"{MODULE}.py", (1980, 1, 1, 0, 0, 0))
        entry.create_system = 3
        entry.external_attr = 0o644 << 16
        file.writestr(entry, source())
    return made.getvalue()


def digest(archive: bytes) -> str:
    """Return the digest of an archive as Lambda tells it."""
    return base64.b64encode(hashlib.sha256(archive).digest()).decode()


def fingerprint() -> str:
    """Return a fingerprint of the source, however it was packed."""
    return hashlib.sha256(source()).hexdigest()
