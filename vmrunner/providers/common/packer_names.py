"""Names that Packer gives its builders and what they need for a while, where it is told none."""

from __future__ import annotations

import re
from typing import Final

#: Age in seconds at which no build uses it any more: what is left is told, and never ended.
OLD: Final = 3600.0
_TEMPORARY: Final = re.compile(r"packer[_-]([0-9a-f]{8})-[0-9a-f-]{27}")


def near(name: str) -> str:
    """Note of an audit on a thing with such a name; "" when it is not Packer's."""
    return f"a Packer build ({name})" if name == BUILDER or _TEMPORARY.fullmatch(name) else ""


#: An EC2 builder's, by default.
BUILDER: Final = "Packer Builder"


def born(name: str) -> float | None:
    """Packer's own ids begin with the time, in epoch seconds."""
    found = _TEMPORARY.fullmatch(name)
    return float(int(found[1], 16)) if found else None
