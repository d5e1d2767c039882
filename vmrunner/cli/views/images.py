"""Views of images: those of the cache and those in clouds, in one table."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmrunner.cli.output import Column, ListView

if TYPE_CHECKING:
    from vmrunner.images import LocalImage
    from vmrunner.model import MadeImage
    from vmrunner.services.document_types import ImageDocument


@dataclass(frozen=True, slots=True)
class ImageListRow:
    """One image. `state`: of one in a cloud, `promoted` where builds get it."""

    id: str
    hash: str
    name: str
    created: float
    state: str
    ref: str
    provider: str
    cloud: MadeImage | None = None
    local: LocalImage | None = None


def of_local(image: LocalImage) -> ImageListRow:
    return ImageListRow(
        image.hash[:12], image.hash, image.name, image.created, "ready", "", "", local=image
    )


def of_cloud(image: MadeImage) -> ImageListRow:
    state = "promoted" if image.promoted_at is not None else image.state.value
    return ImageListRow(
        image.id, image.hash, image.recipe, image.created_at, state, image.ref or "",
        image.provider, cloud=image,
    )  # fmt: skip


def view() -> ListView[ImageListRow]:
    from vmrunner.lib import units

    now = time.time()
    return ListView(
        kind="image",
        columns=(
            Column("id", lambda i: i.id),
            Column("name", lambda i: i.name),
            Column("state", lambda i: i.state, colour=lambda i: _COLOURS.get(i.state, "")),
            Column("age", lambda i: units.span(max(0.0, now - i.created))),
            Column("provider", lambda i: i.provider),
            Column("ref", lambda i: i.ref),
            Column("size", lambda i: units.amount(i.local.size) if i.local else ""),
            Column("containers", lambda i: ", ".join(i.local.containers) if i.local else ""),
            Column("made of", lambda i: made_of(i.local) if i.local else "", wide=True),
            Column("scope", lambda i: str(i.cloud.scope) if i.cloud else "", wide=True),
            Column("directory", lambda i: str(i.local.directory) if i.local else "", wide=True),
            Column("message", lambda i: i.cloud.message if i.cloud else "", wide=True),
        ),
        document=document,
        empty="no image yet: vmrunner image build makes one",
    )


_COLOURS = {"promoted": "green", "failed": "red", "building": "yellow", "retired": "dim"}


def made_of(image: LocalImage) -> str:
    """Images that its containers are made of, whose names a registry may have too."""
    return "; ".join(f"{name}: {origin}" for name, origin in image.origins.items())


def document(shown: ImageListRow) -> ImageDocument:
    """Return the document for programs: the same keys for both, null where there is no such
    thing."""
    from vmrunner.services.documents import iso

    local, cloud = shown.local, shown.cloud
    return {
        "id": cloud.id if cloud else None,
        "hash": shown.hash,
        "name": shown.name,
        "state": cloud.state.value if cloud else shown.state,
        "created_at": iso(shown.created),
        "provider": shown.provider or None,
        "scope": str(cloud.scope) if cloud else None,
        "ref": shown.ref or None,
        "title": cloud.name if cloud else None,
        "builder": cloud.builder if cloud else None,
        "deadline": iso(cloud.deadline) if cloud else None,
        "builder_gone_at": iso(cloud.closed_at) if cloud else None,
        "promoted_at": iso(cloud.promoted_at) if cloud else None,
        "snapshots": list(cloud.snapshots) if cloud else [],
        "message": (cloud.message or None) if cloud else None,
        "size": local.size if local else None,
        "containers": list(local.containers) if local else None,
        "origins": dict(local.origins) if local else None,
        "directory": str(local.directory) if local else None,
    }
