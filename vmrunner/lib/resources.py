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
