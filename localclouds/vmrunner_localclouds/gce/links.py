"""Names of resources: whole links, as answers have them, and the shorter ones that requests may."""

from __future__ import annotations

from typing import Final

HOST: Final = "https://www.googleapis.com/compute/v1/"


def link(relative: str) -> str:
    """`projects/p/zones/z/instances/i` → the whole link of answers."""
    return HOST + relative


def relative(reference: str, project: str) -> str:
    """A link, given in full or in part, as `projects/…`."""
    if "/projects/" in reference:
        return "projects/" + reference.partition("/projects/")[2]
    if reference.startswith("projects/"):
        return reference
    return f"projects/{project}/{reference.lstrip('/')}"


def last(reference: str) -> str:
    return reference.rpartition("/")[2]
