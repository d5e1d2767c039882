"""Version of the unit image: a pod of another one than this vmrunner's ends before anything of a
build runs in it, with an exit code of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vmrunner.lib import unit_recipe

#: Exit code of what lays a unit out, where its image has another recipe: nothing else ends so.
OLD_UNIT: Final = 93
MAKE: Final = "vmrunner image build --unit --push REGISTRY/NAME, and set unit_image"
_SUPERVISOR: Final = f"/{unit_recipe.LIBRARY}/supervisor"
#: With the recipe that is wanted as `$0`. An image of before there were any has no such file.
_SCRIPT: Final = (
    f'read -r recipe </{unit_recipe.HASH}; [ "$recipe" = "$0" ] || exit {OLD_UNIT}; '
    f"exec {_SUPERVISOR} lay"
)


def lay_command() -> list[str]:
    """Command of the container that lays a unit out."""
    return ["/bin/sh", "-c", _SCRIPT, unit_recipe.current()]


def is_old(ended: Mapping[str, Any] | None) -> bool:
    """True if this end of the container which lays a unit out tells of such an image."""
    return ended is not None and ended.get("exitCode") == OLD_UNIT


def words() -> str:
    """Words for whoever configured it."""
    return f"unit_image: its recipe is not this vmrunner's, {unit_recipe.current()} ({MAKE})"
