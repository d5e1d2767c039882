"""The exchange of an identity for a token. It needs no token."""

from __future__ import annotations

from typing import cast

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from vmrunner.lib.config_section import Section
from vmrunner.server import request_bodies
from vmrunner.server.oidc import OidcExchange
from vmrunner.server.routes.answers import answers, json_body
from vmrunner.server.routes.common import Parts
from vmrunner.services.document_types import ExchangedTokenDocument
from vmrunner.services.documents import iso

router = APIRouter(tags=["tokens"])
IDENTITY = 64 << 10  # bytes


class ExchangeBody(Section):
    """`jwt`: the identity token of a CI system."""

    jwt: str = Field(min_length=1)


@router.post(
    "/token",
    status_code=201,
    responses=answers("ExchangedTokenDocument", status=201),
    openapi_extra=json_body(ExchangeBody, {"jwt": "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl"}),
)
async def exchange(request: Request, parts: Parts) -> JSONResponse:
    """Give a token for an identity that the configuration has a rule for."""
    body = await request_bodies.model(
        request, ExchangeBody, IDENTITY
    )  # of who has shown nothing yet
    exchange = cast("OidcExchange", request.app.state.oidc)
    secret, token = await to_thread.run_sync(
        exchange.exchange,
        body.jwt,
        parts.settings().server.oidc,
        parts.ledger,
        parts.now(),
        limiter=request.app.state.oidc_threads,
    )
    return JSONResponse(
        ExchangedTokenDocument(
            token=secret,
            expires_at=iso(token.expires_at),
            scopes=sorted(token.scopes),
            labels=dict(token.labels),
        ),
        201,
    )
