"""Uploads of sources."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from vmrunner.server import request_bodies
from vmrunner.server.caller_slots import CallerSlots
from vmrunner.server.routes.answers import OCTETS, TAR, answers, octets
from vmrunner.server.routes.common import Parts, Submitter, ask_store
from vmrunner.services.document_types import DigestDocument
from vmrunner.services.uploads import Uploads

router = APIRouter(tags=["sources"])


@router.put(
    "/sources",
    status_code=201,
    responses=answers("DigestDocument", problems=(507,), status=201),
    openapi_extra=octets(OCTETS, TAR, required=True),
)
async def put_source(request: Request, parts: Parts, principal: Submitter) -> JSONResponse:
    """Take a tar of a source. The digest in the answer names it in `POST /builds`, for a day."""
    slots: CallerSlots = request.app.state.upload_slots
    slots.take(principal)
    try:
        length = request.headers.get("content-length", "")
        bounds = parts.settings().server
        uploads = Uploads(
            parts.paths,
            parts.submission().transfer,
            principal.tenant,
            unused=lambda: parts.ledger.objects.unused_source_bytes(principal.tenant),
            coming=request.app.state.coming_bytes,
            most=bounds.unused_source_bytes,
            total=max(bounds.total_unused_source_bytes, bounds.unused_source_bytes),
        )
        upload = await run_in_threadpool(uploads.begin, int(length) if length.isdecimal() else 0)
        try:
            async for part in request_bodies.stream(request, parts.settings().limits.source_bytes):
                await run_in_threadpool(upload.write, part)
            digest = await ask_store(request, upload.finish)
        finally:
            await run_in_threadpool(upload.abandon)
    finally:
        slots.give_back(principal)
    return JSONResponse(DigestDocument(digest=digest), 201)
