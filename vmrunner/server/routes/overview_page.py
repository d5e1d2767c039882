"""The overview in a browser: the builds that the caller sees, and for who sees all the house."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

from fastapi import APIRouter, Request, Response

from vmrunner.lib import units
from vmrunner.model import BuildState, Cost, Result
from vmrunner.server import charts
from vmrunner.server.charts import Chart, ChartColumn
from vmrunner.server.html import rendered
from vmrunner.server.kept_answers import KeptAnswers
from vmrunner.server.routes.build_page import list_rows
from vmrunner.server.routes.builds import waiting_reasons
from vmrunner.server.routes.common import IN_TURN, Parts, Reader
from vmrunner.services import costs, overview
from vmrunner.services.overview import BuildHistory

router = APIRouter(include_in_schema=False)


@router.get("/overview", dependencies=[IN_TURN])
def show_overview(request: Request, parts: Parts, principal: Reader) -> Response:
    """Show what runs, what waits and why, what failed, what it costs, and how the house is."""
    kept = cast("KeptAnswers[BuildHistory]", request.app.state.histories)
    own, now = principal.labels, parts.now()
    builds = overview.builds_now(parts.ledger, own)
    history = kept.get(
        tuple(sorted(own.items())),
        lambda: overview.history(parts.ledger, parts.providers, own, now),
        builds.version,
    )
    reasons = waiting_reasons(parts, principal, list(builds.waiting))
    counts = dict(builds.counts)
    queued = counts.pop(BuildState.QUEUED.value, 0)
    return rendered(
        request,
        "overview.html",
        running=list_rows(parts, builds.running, {}),
        waiting=list_rows(parts, builds.waiting, reasons),
        failed=list_rows(parts, builds.failed, {}),
        counts={"running": sum(counts.values()), "queued": queued},
        ended=history.ended,
        failures=history.failed,
        today=_today(history.today),
        charts=[
            ("Builds ended, by hour", _ends(history)),
            ("Time in the queue, by hour", _waits(history)),
            ("Cost of builds, by day", _costs(history)),
        ],
        server=parts.settings().server.url or str(request.base_url).rstrip("/"),
        house=None if own else overview.house_now(parts.ledger, parts.providers),
    )


def _today(cost: Cost) -> tuple[str, str]:
    """A figure, and the words behind it."""
    if not cost.unpriced:
        return _figure(cost.known) if costs.short(cost) else "$0", "today"
    if not cost.known:
        return "unknown", "is what today cost: no price is known"
    return _figure(cost.known), "today, and what has no known price"


def _figure(usd: float) -> str:
    """A sum as one reads it at a glance."""
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.4f}"


def _hour(start: float) -> str:
    return f"{datetime.fromtimestamp(start, UTC):%H}:00 UTC"


def _ends(history: BuildHistory) -> Chart:
    columns = []
    for hour in history.hours:
        well = hour.results[Result.SUCCESS]
        others = sum(hour.results.values()) - well - hour.failed
        title = f"{well} well, {hour.failed} failed" + (f", {others} cancelled" if others else "")
        parts = {
            "success": float(well), "cancelled": float(others), "failure": float(hour.failed),
        }  # fmt: skip
        columns.append(ChartColumn(title=title, tick=_hour(hour.start), parts=parts))
    most = max((sum(hour.results.values()) for hour in history.hours), default=0)
    summary = f"{history.ended} builds ended in the last 24 hours, {history.failed} failed"
    return charts.chart(columns, top=f"{most} an hour", summary=summary)


def _waits(history: BuildHistory) -> Chart:
    waits = [(hour.start, hour.wait) for hour in history.hours]
    columns = [
        ChartColumn(
            title="nothing waited" if wait is None else f"{units.span(wait)} (median)",
            tick=_hour(start),
            parts={"queued": wait or 0.0},
        )
        for start, wait in waits
    ]
    longest = units.span(max((wait or 0.0 for _, wait in waits), default=0.0))
    summary = f"median time in the queue, {longest} at most in the last 24 hours"
    return charts.chart(columns, top=longest, summary=summary)


def _costs(history: BuildHistory) -> Chart:
    columns = [
        ChartColumn(title=_usd(cost), tick=day[5:], parts={"cost": cost.known if cost else 0.0})
        for day, cost in history.days
    ]
    most = max((cost.known for _, cost in history.days if cost), default=0.0)
    total = sum(cost.known for _, cost in history.days if cost)
    summary = f"builds cost ${total:.2f} in the last {overview.DAYS} days"
    return charts.chart(columns, top=f"${most:.2f}", summary=summary)


def _usd(cost: Cost | None) -> str:
    if cost is None:
        return "nothing"
    return f"${cost.known:.4f}" + ("" if cost.usd is not None else ", and what has no known price")
