"""Routes for machines: liveness, readiness, metrics."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from vmrunner.errors import LedgerError
from vmrunner.server.metrics import Metrics
from vmrunner.server.packed_document import PackedDocument
from vmrunner.server.problems import HttpProblem
from vmrunner.server.routes.common import Parts, Scraper

router = APIRouter(include_in_schema=False)
_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


@router.api_route("/healthz", methods=["GET", "HEAD"])
async def healthz() -> Response:  # in no thread: all may be busy
    """The process answers."""
    return PlainTextResponse("ok\n")


@router.api_route("/readyz", methods=["GET", "HEAD"])
def readyz(parts: Parts) -> Response:
    """The ledger answers too."""
    try:
        paused = parts.ledger.paused
    except LedgerError:
        raise HttpProblem(503, "the ledger is out of reach") from None
    return JSONResponse({"ready": True, "draining": paused})


@router.get("/api/v1/openapi.json")
def api_document(request: Request) -> Response:
    """The OpenAPI document, for whoever asks."""
    found = cast("PackedDocument", request.app.state.api_document)
    return found.response(request.headers)


@router.get("/metrics")
def metrics(request: Request, _: Scraper) -> Response:
    """Metrics, as Prometheus reads them."""
    found = cast("Metrics", request.app.state.metrics)
    return Response(found.exposition(), media_type=_EXPOSITION)
