"""Versions of this program and of what it runs on."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from typing import TYPE_CHECKING

from vmrunner.lib import table_versions

if TYPE_CHECKING:
    from vmrunner.services import document_types as types


def ours(version: str) -> types.VersionDocument:
    """The versions that a bug report needs first; `version`: this program's."""
    return {
        "vmrunner": version,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "tables": table_versions.known()[-1],
    }


def distributions() -> dict[str, str]:
    """Versions of what vmrunner needs, also by its extras, as far as it is installed."""
    try:
        needed = importlib.metadata.requires("vmrunner") or []
    except importlib.metadata.PackageNotFoundError:
        needed = []
    found = {}
    for name in sorted({re.split(r"[^A-Za-z0-9._-]", line)[0].lower() for line in needed}):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
