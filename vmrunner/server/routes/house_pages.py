"""The pages for who sees everybody's: pools, nodes, audit, actions, tokens."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from vmrunner.lib import units
from vmrunner.server.caller_slots import CallerSlots
from vmrunner.server.pages import is_admin
from vmrunner.server.routes.common import Admin, Parts, WholeReader
from vmrunner.server.tables import Cell, TableRow, Wish, table
from vmrunner.services import audit as audits
from vmrunner.services import nodes, pools, tokens
from vmrunner.services.documents import iso

router = APIRouter(include_in_schema=False)


@router.get("/pools")
def pool_page(request: Request, parts: Parts, principal: WholeReader) -> Response:
    """The pools, and why one is empty."""
    may = is_admin(principal)
    rows = [
        TableRow(
            cells=(
                Cell(text=one.pool.name),
                Cell(text=one.pool.spec.kind.value),
                Cell(text=one.pool.spec.provider),
                Cell(text="?" if one.want is None else one.want),
                Cell(text=one.have, kind="ready" if one.have else ""),
                Cell(text=one.making),
                Cell(text=one.claimed),
                Cell(text="" if one.hit_rate is None else f"{one.hit_rate:.0%}"),
                Cell(text="" if one.p50 is None else f"{one.p50:.1f} s, {one.p95:.1f} s"),
                Cell(text=f"${one.idle_usd_today:.2f}"),
                Cell(text=one.empty_reason.value if one.empty_reason else ""),
            ),
            wishes=(
                Wish(
                    name="Drain",
                    post=f"/api/v1/pools/{one.pool.name}/drain",
                    ask="End its VMs that wait, and make no more?",
                ),
            )
            if may
            else (),
        )
        for one in pools.status(parts.ledger, parts.providers)
    ]
    columns = (
        "Pool", "Kind", "Provider", "Wants", "Has", "Making", "With a build", "Hit rate",
        "Start p50, p95", "Idle today", "Empty because",
    )  # fmt: skip
    return table(request, "Pools", columns, rows, empty="No pool is configured.")


def _liveness(one: nodes.Node) -> Cell:
    if one.outdated:
        return Cell(text=f"outdated: it knows version {one.version} of the ledger", kind="late")
    return Cell(text="alive" if one.alive else "silent", kind="alive" if one.alive else "late")


@router.get("/nodes")
def node_page(request: Request, parts: Parts, _: WholeReader) -> Response:
    """The engines and the reaper."""
    now = parts.now()
    rows = [
        TableRow(
            cells=(
                Cell(text=one.id),
                _liveness(one),
                Cell(text="reaps" if one.reaps else ""),
                Cell(text=one.kind),
                Cell(text=f"{one.machine[:12]}, process {one.pid}"),
                Cell(text=units.span(now - one.joined_at)),
                Cell(text=f"{units.span(max(0.0, now - one.seen_at))} ago"),
                Cell(text=", ".join(one.providers)),
                Cell(text=one.builds),
            )
        )
        for one in nodes.status(parts.ledger, parts.ledger.engines.now())
    ]
    beats = parts.ledger.engines.heartbeats()
    note = "; ".join(
        f"last {name} of the reaper {units.span(max(0.0, now - at))} ago"
        for name, at in sorted(beats.items())
        if name in ("pass", "sweep")
    )
    columns = (
        "Engine", "", "Reaper", "Kind", "Where", "Up", "Heartbeat", "Providers", "Builds",
    )  # fmt: skip
    return table(request, "Nodes", columns, rows, empty="No engine serves.", note=note)


@router.get("/audit")
def audit_page(request: Request, parts: Parts, principal: WholeReader) -> Response:
    """The cloud against the ledger, asked now."""
    slots: CallerSlots = request.app.state.look_slots
    with slots.held(principal):
        found = audits.audit(
            parts.ledgers, parts.providers, parts.limits().limits, provider=None, tag=None,
            older_than=None,
        )  # fmt: skip
    rows = [
        TableRow(
            cells=(
                Cell(text=one.fault.value, kind="error"),
                Cell(text=one.instance or ""),
                Cell(text=one.ref.id if one.ref else ""),
                Cell(text="" if one.late is None else units.span(one.late)),
                Cell(text=one.message, kind="wrap"),
            )
        )
        for one in found
    ]
    columns = ("Fault", "VM", "The cloud's name", "Late", "What is wrong")
    return table(
        request, "Audit", columns, rows, live=False,
        empty="Nothing is alive that should not be.", note="What the clouds show, asked just now.",
    )  # fmt: skip


@router.get("/actions")
def action_page(request: Request, parts: Parts, _: WholeReader) -> Response:
    """List what somebody did that concerns no build."""
    rows = [
        TableRow(
            cells=(
                Cell(text=iso(one.at)),
                Cell(text=one.actor),
                Cell(text=one.verb),
                Cell(text=one.subject),
                Cell(text=one.detail, kind="wrap"),
            )
        )
        for one in parts.ledger.actions.latest(200)
    ]
    return table(request, "Actions", ("Time", "Who", "Did", "To", ""), rows)


@router.get("/tokens")
def token_page(request: Request, parts: Parts, _: Admin) -> Response:
    """The tokens. No page makes one: it would be in a browser's history."""
    now = parts.now()
    rows = []
    for one in parts.ledger.tokens.list():
        state = "revoked" if one.revoked_at else "valid" if one.valid(now) else "expired"
        rows.append(
            TableRow(
                cells=(
                    Cell(text=one.id),
                    Cell(text=one.name),
                    Cell(text=state, kind=state),
                    Cell(text=", ".join(sorted(one.scopes))),
                    Cell(text=", ".join(f"{k}={v}" for k, v in sorted(one.labels.items()))),
                    Cell(text=iso(one.created_at)),
                    Cell(text=one.created_by),
                    Cell(text=iso(one.expires_at) or "never"),
                ),
                wishes=(
                    Wish(name="Revoke", post=f"/tokens/{one.id}/revoke", ask="Revoke it for ever?"),
                )
                if state == "valid"
                else (),
            )
        )
    columns = ("Token", "Name", "", "Scopes", "Labels", "Created", "By", "Expires")
    note = "vmrunner token create makes one."
    return table(request, "Tokens", columns, rows, note=note, live=False)


@router.post("/tokens/{token}/revoke")
def revoke(token: str, parts: Parts, admin: Admin) -> Response:
    """Let a token be valid no more."""
    tokens.revoke(parts.ledger, token, by=admin.actor)
    return JSONResponse({})
