"""Files that ship beside the code: in the wheel under `_data`, else in the tree."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).resolve().parents[1]

#: The supervisor's files; launcher.py becomes the program, the others lie beside it.
GUEST: Final = _PACKAGE / "guest"


def path(name: str) -> Path:
    """The directory `name` ("cloud-init", "deploy", "packer"). Raises FileNotFoundError."""
    for place in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"{name}: not in this installation of vmrunner")


def openapi() -> Path:
    """The OpenAPI document of the HTTP API. Raises FileNotFoundError."""
    for place in (_PACKAGE / "_data", _PACKAGE.parent / "docs"):
        if (found := place / "openapi.json").is_file():
            return found
    raise FileNotFoundError("openapi.json: not in this installation of vmrunner")
