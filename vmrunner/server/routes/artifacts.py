"""Artifacts of a build: listed, and served as bytes that no browser takes for a page."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import JSONResponse, StreamingResponse

from vmrunner.server.routes.common import Parts, Reader, listing, visible_build
from vmrunner.server.routes.logs import INERT
from vmrunner.services.artifacts import Artifacts
from vmrunner.services.documents import artifact_document

router = APIRouter(tags=["artifacts"])


@router.get("/builds/{build}/artifacts")
def list_artifacts(build: str, parts: Parts, principal: Reader) -> JSONResponse:
    """List what the build brought back."""
    row = visible_build(parts, principal, build)
    found = Artifacts.of(row, parts.artifact_files)
    return listing("artifact", map(artifact_document, found))


@router.get("/builds/{build}/artifacts/{path:path}")
def get_artifact(build: str, path: str, parts: Parts, principal: Reader) -> StreamingResponse:
    """One file, by its path as the list has it."""
    row = visible_build(parts, principal, build)
    pieces, size = Artifacts.of(row, parts.artifact_files).read(path)
    name = quote(path.rpartition("/")[2], safe="")
    headers = {
        **INERT,
        "Content-Length": str(size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
    }
    return StreamingResponse(pieces, 200, headers, media_type="application/octet-stream")
