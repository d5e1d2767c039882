"""Names of resources: whole links, as answers have them, and the shorter ones that requests may."""

from __future__ import annotations

from typing import Final

HOST: Final = "https://www.googleapis.com/compute/v1/"


def link(relative: str) -> str:
    """`projects/p/zones/z/instances/i` → what an answer says."""
    return HOST + relative


def relative(said: str, project: str) -> str:
    """Return a link, given in full or in part, as `projects/…`."""
    if "/projects/" in said:
        return "projects/" + said.partition("/projects/")[2]
    if said.startswith("projects/"):
        return said
    return f"projects/{project}/{said.lstrip('/')}"


def last(said: str) -> str:
    return said.rpartition("/")[2]
