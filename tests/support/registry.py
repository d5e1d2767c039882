"""A registry that wants a login, as Docker speaks of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence


def refusal(image: str, wanted: Mapping[str, str], logins: Sequence[str]) -> tuple[int, str]:
    """Docker's status and words for a pull; it repeats what it was told, as registries may."""
    login = json.loads(base64.urlsafe_b64decode(logins[-1])) if logins else {}
    if login.items() >= wanted.items():
        return 200, ""
    password = login.get("password", "nothing")
    return 404, f"pull access denied for {image}: {password} is no login"
