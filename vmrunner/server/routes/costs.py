"""Costs, as documents and as a page: those of the builds that the token sees."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from vmrunner.core import cost_report
from vmrunner.lib import units
from vmrunner.server.html_tables import Cell, TableLink, TableRow, table
from vmrunner.server.routes.answers import answers
from vmrunner.server.routes.common import IN_TURN, Parameters, Parts, Reader, listing
from vmrunner.server.routes.query_words import Grouping, Span
from vmrunner.services import costs
from vmrunner.services.documents import cost_document

router = APIRouter(tags=["costs"])
pages = APIRouter(include_in_schema=False)


class CostParameters(Parameters):
    """`by`: `provider`, `day`, or `label:NAME`; `since`: such as 7d, or seconds."""

    by: Grouping = Field(default="provider", max_length=200)
    since: Span = 7 * cost_report.DAY


@router.get("/costs", responses=answers("CostPage", problems=(429,)), dependencies=[IN_TURN])
def list_costs(
    parts: Parts, principal: Reader, wanted: Annotated[CostParameters, Query()]
) -> JSONResponse:
    """The costs of the builds that the token sees; without a filter also of VMs of pools that no
    build used, and of images."""
    found = costs.report(
        parts.ledger, parts.providers, by=wanted.by, since=wanted.since, own=principal.labels
    )
    return listing("cost", map(cost_document, found))


@pages.get("/costs", dependencies=[IN_TURN])
def cost_page(
    request: Request, parts: Parts, principal: Reader, wanted: Annotated[CostParameters, Query()]
) -> Response:
    """Costs; the grouping is in the URL."""
    found = costs.report(
        parts.ledger, parts.providers, by=wanted.by, since=wanted.since, own=principal.labels
    )
    rows = [
        TableRow(
            cells=(
                Cell(text=costs.name(line, wanted.by)),
                Cell(
                    text=costs.short(line.cost),
                    kind="number late" if line.cost.usd is None else "number",
                ),
                Cell(text="" if line.cost.final else "so far"),
                Cell(text=line.builds or "", kind="number"),
                Cell(text=line.vms, kind="number"),
                Cell(text=units.span(line.seconds), kind="number"),
                Cell(text=costs.basis(line.cost)),
            )
        )
        for line in found
    ]
    together = costs.text(cost_report.total(found))
    note = f"The last {units.exact(wanted.since)}: {together}. Estimated, in USD."
    columns = ("Builds by " + wanted.by, "Cost", "Final", "Builds", "VMs", "Time", "Reckoned by")
    links = [
        TableLink(
            text=f"by {by}",
            link="/costs?" + urlencode({"by": by, "since": units.exact(wanted.since)}),
            here=by == wanted.by,
        )
        for by in (costs.PROVIDER, costs.DAY, f"{costs.LABEL}team")
    ]
    return table(  # not live: each look sums all these VMs
        request, "Costs", columns, rows, note=note if rows else "", links=links,
        empty=f"Nothing was spent in the last {units.exact(wanted.since)}.",
        live=False,
    )  # fmt: skip
