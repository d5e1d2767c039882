"""The pages for who sees everybody's: pools, nodes, audit, actions, tokens."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from vmrunner.lib import units
from vmrunner.server.caller_slots import CallerSlots
from vmrunner.server.html import is_admin
from vmrunner.server.html_tables import Cell, RowAction, TableRow, table
from vmrunner.server.routes.common import Admin, Parts, WholeReader
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
                Cell(text=status.pool.name),
                Cell(text=status.pool.spec.kind.value),
                Cell(text=status.pool.spec.provider),
                Cell(text="?" if status.want is None else status.want),
                Cell(text=status.have, kind="ready" if status.have else ""),
                Cell(text=status.making),
                Cell(text=status.claimed),
                Cell(text="" if status.hit_rate is None else f"{status.hit_rate:.0%}"),
                Cell(text="" if status.p50 is None else f"{status.p50:.1f} s, {status.p95:.1f} s"),
                Cell(text=f"${status.idle_usd_today:.2f}"),
                Cell(text=status.empty_reason.value if status.empty_reason else ""),
            ),
            actions=(
                RowAction(
                    name="Drain",
                    post=f"/api/v1/pools/{status.pool.name}/drain",
                    ask="End its VMs that wait, and make no more?",
                ),
            )
            if may
            else (),
        )
        for status in pools.status(parts.ledger, parts.providers)
    ]
    columns = (
        "Pool", "Kind", "Provider", "Wants", "Has", "Making", "With a build", "Hit rate",
        "Start p50, p95", "Idle today", "Empty because",
    )  # fmt: skip
    return table(request, "Pools", columns, rows, empty="No pool is configured.")


def _liveness(node: nodes.Node) -> Cell:
    if node.outdated:
        return Cell(text=f"outdated: it knows version {node.version} of the ledger", kind="late")
    return Cell(text="alive" if node.alive else "silent", kind="alive" if node.alive else "late")


@router.get("/nodes")
def node_page(request: Request, parts: Parts, _: WholeReader) -> Response:
    """The engines and the reaper."""
    now = parts.now()
    rows = [
        TableRow(
            cells=(
                Cell(text=node.id),
                _liveness(node),
                Cell(text="reaps" if node.reaps else ""),
                Cell(text=node.kind),
                Cell(text=f"{node.machine[:12]}, process {node.pid}"),
                Cell(text=units.span(now - node.joined_at)),
                Cell(text=f"{units.span(max(0.0, now - node.seen_at))} ago"),
                Cell(text=", ".join(node.providers)),
                Cell(text=node.builds),
            )
        )
        for node in nodes.status(parts.ledger, parts.ledger.engines.now())
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
                Cell(text=finding.fault.value, kind="error"),
                Cell(text=finding.instance or ""),
                Cell(text=finding.ref.id if finding.ref else ""),
                Cell(text="" if finding.late is None else units.span(finding.late)),
                Cell(text=finding.message, kind="wrap"),
            )
        )
        for finding in found
    ]
    columns = ("Fault", "VM", "The cloud's name", "Late", "What is wrong")
    return table(
        request, "Audit", columns, rows, live=False,
        empty="Nothing is alive that should not be.", note="What the clouds show, asked just now.",
    )  # fmt: skip


@router.get("/actions")
def action_page(request: Request, parts: Parts, _: WholeReader) -> Response:
    """List actions of users that concern no build."""
    rows = [
        TableRow(
            cells=(
                Cell(text=iso(action.at)),
                Cell(text=action.actor),
                Cell(text=action.verb),
                Cell(text=action.subject),
                Cell(text=action.detail, kind="wrap"),
            )
        )
        for action in parts.ledger.actions.latest(200)
    ]
    return table(request, "Actions", ("Time", "Who", "Did", "To", ""), rows)


@router.get("/tokens")
def token_page(request: Request, parts: Parts, _: Admin) -> Response:
    """The tokens. No page makes one: it would be in a browser's history."""
    now = parts.now()
    rows = []
    for token in parts.ledger.tokens.list():
        state = "revoked" if token.revoked_at else "valid" if token.valid(now) else "expired"
        rows.append(
            TableRow(
                cells=(
                    Cell(text=token.id),
                    Cell(text=token.name),
                    Cell(text=state, kind=state),
                    Cell(text=", ".join(sorted(token.scopes))),
                    Cell(text=", ".join(f"{k}={v}" for k, v in sorted(token.labels.items()))),
                    Cell(text=iso(token.created_at)),
                    Cell(text=token.created_by),
                    Cell(text=iso(token.expires_at) or "never"),
                ),
                actions=(
                    RowAction(
                        name="Revoke", post=f"/tokens/{token.id}/revoke", ask="Revoke it for ever?"
                    ),
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
