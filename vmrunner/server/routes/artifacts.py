"""Artifacts of a build: listed, and served as bytes that no browser takes for a page."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from vmrunner.model import Principal
from vmrunner.server.caller_slots import CallerStream
from vmrunner.server.dependencies import ServerParts
from vmrunner.server.routes.answers import BINARY, OCTETS, TAR, answers
from vmrunner.server.routes.common import Parts, Reader, ask_store, listing, visible_build
from vmrunner.server.routes.logs import INERT
from vmrunner.services.artifact_archive import archive
from vmrunner.services.artifacts import Artifacts
from vmrunner.services.documents import artifact_document

router = APIRouter(tags=["artifacts"])


@router.get(
    "/builds/{build}/artifacts",
    responses=answers("ArtifactPage", problems=(409, 429), others={TAR: BINARY}),
)
async def list_artifacts(build: str, request: Request, parts: Parts, principal: Reader) -> Response:
    """List what the build brought back; with `Accept: application/x-tar` all of it."""
    return await ask_store(request, lambda: _all(build, request, parts, principal))


def _all(build: str, request: Request, parts: ServerParts, principal: Principal) -> Response:
    row = visible_build(parts, principal, build)
    found = Artifacts.of(row, parts.artifact_files)
    if TAR in request.headers.get("accept", ""):
        return CallerStream(
            archive(found.files()),
            slots=request.app.state.stream_slots,
            principal=principal,
            headers=INERT,
            media_type=TAR,
        )
    return listing("artifact", map(artifact_document, found))


@router.get(
    "/builds/{build}/artifacts/{path:path}",
    responses=answers(
        problems=(409, 429),
        others={OCTETS: BINARY},
        headers=("Content-Disposition",),
        described="The file",
    ),
)
async def get_artifact(
    build: str, path: str, request: Request, parts: Parts, principal: Reader
) -> CallerStream:
    """One file, by its path as the list has it."""
    return await ask_store(request, lambda: _one(build, path, request, parts, principal))


def _one(
    build: str, path: str, request: Request, parts: ServerParts, principal: Principal
) -> CallerStream:
    row = visible_build(parts, principal, build)
    pieces, size = Artifacts.of(row, parts.artifact_files).read(path)
    name = quote(path.rpartition("/")[2], safe="")
    headers = {
        **INERT,
        "Content-Length": str(size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
    }
    return CallerStream(
        pieces,
        slots=request.app.state.stream_slots,
        principal=principal,
        headers=headers,
        media_type="application/octet-stream",
    )
