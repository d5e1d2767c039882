"""Uploads of sources."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from vmrunner.model import Principal
from vmrunner.server import bodies
from vmrunner.server.problems import HttpProblem
from vmrunner.server.routes.common import Parts, Submitter
from vmrunner.services.uploads import Uploads

router = APIRouter(tags=["sources"])
_TAR = {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}
#: Uploads of one caller at once.
AT_ONCE = 4


class UploadSlots:
    """Counts the uploads that are under way, by caller."""

    def __init__(self) -> None:
        self._busy: dict[str, int] = {}

    def take(self, principal: Principal) -> None:
        """Raises HttpProblem when the caller has all of its own already."""
        busy = self._busy.get(principal.actor, 0)
        if busy >= AT_ONCE:
            wait = {"Retry-After": "5"}
            raise HttpProblem(429, f"{AT_ONCE} uploads of this token are under way", headers=wait)
        self._busy[principal.actor] = busy + 1

    def give_back(self, principal: Principal) -> None:
        self._busy[principal.actor] -= 1
        if not self._busy[principal.actor]:
            del self._busy[principal.actor]


@router.put(
    "/sources",
    status_code=201,
    openapi_extra={"requestBody": {"required": True, "content": _TAR}},
)
async def put_source(request: Request, parts: Parts, principal: Submitter) -> JSONResponse:
    """Take a tar of a source. The digest in the answer names it in `POST /builds`, for a day."""
    slots: UploadSlots = request.app.state.upload_slots
    slots.take(principal)
    try:
        told = request.headers.get("content-length", "")
        uploads = Uploads(parts.paths, parts.submission().transfer, principal.tenant)
        upload = await run_in_threadpool(uploads.begin, int(told) if told.isdecimal() else 0)
        try:
            async for part in bodies.stream(request, parts.settings().limits.source_bytes):
                await run_in_threadpool(upload.write, part)
            digest = await run_in_threadpool(upload.finish)
        finally:
            await run_in_threadpool(upload.abandon)
    finally:
        slots.give_back(principal)
    return JSONResponse({"digest": digest}, 201)
