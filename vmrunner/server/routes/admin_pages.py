"""The pages for who sees everybody's: pools, nodes, audit, actions, tokens."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from markupsafe import Markup

from vmrunner.lib import units
from vmrunner.model import Token
from vmrunner.server import html_times
from vmrunner.server.caller_slots import CallerSlots
from vmrunner.server.html import is_admin
from vmrunner.server.html_tables import Cell, RowAction, TableRow, table
from vmrunner.server.routes.common import Admin, Parts, WholeReader
from vmrunner.services import audit as audits
from vmrunner.services import nodes, people, pools, tokens

router = APIRouter(include_in_schema=False)


@router.get("/pools")
def pool_page(request: Request, parts: Parts, principal: WholeReader) -> Response:
    """The pools, and why one is empty."""
    may = is_admin(principal)
    rows = [
        TableRow(
            key=status.pool.name,
            cells=(
                Cell(text=status.pool.name, kind="named"),
                Cell(text=status.pool.spec.kind.value),
                Cell(text=status.pool.spec.provider),
                Cell(text="?" if status.want is None else status.want, kind="number"),
                Cell(text=status.have, kind="number ready" if status.have else "number"),
                Cell(text=status.making, kind="number"),
                Cell(text=status.claimed, kind="number"),
                Cell(
                    text="" if status.hit_rate is None else f"{status.hit_rate:.0%}", kind="number"
                ),
                Cell(
                    text="" if status.p50 is None else f"{status.p50:.1f} s, {status.p95:.1f} s",
                    kind="number",
                ),
                Cell(text=f"${status.idle_usd_today:.2f}", kind="number"),
                Cell(
                    text=status.empty_reason.value.replace("_", " ") if status.empty_reason else ""
                ),
            ),
            actions=(
                RowAction(
                    name="Drain",
                    post=f"/api/v1/pools/{status.pool.name}/drain",
                    ask=f"Empty the pool {status.pool.name}? Its VMs that wait are destroyed, and"
                    " no more are made until it is resized. Builds start colder.",
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
    return table(
        request,
        "Pools",
        columns,
        rows,
        empty=Markup(
            "No pool is configured: each build waits until its VM has booted."
            " <code>[pools.NAME]</code> in the configuration keeps some ready."
        ),
    )


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
            key=node.id,
            cells=(
                Cell(text=node.id),
                _liveness(node),
                Cell(text="reaps" if node.reaps else ""),
                Cell(text=node.kind),
                Cell(text=f"{node.machine[:12]}, process {node.pid}"),
                Cell(text=html_times.lasting(node.joined_at, now)),
                Cell(text=html_times.ago(node.seen_at, now)),
                Cell(text=", ".join(node.providers)),
                Cell(text=node.builds, kind="number"),
            ),
        )
        for node in nodes.status(parts.ledger, parts.ledger.engines.now())
    ]
    beats = parts.ledger.engines.heartbeats()
    note = Markup("; ").join(
        Markup("Last {} of the reaper {}").format(name, html_times.ago(at, now))
        for name, at in sorted(beats.items())
        if name in ("pass", "sweep")
    )
    columns = (
        "Engine", "State", "Reaper", "Kind", "Where", "Up", "Heartbeat", "Providers", "Builds",
    )  # fmt: skip
    return table(
        request, "Nodes", columns, rows, note=note,
        empty=Markup("No engine serves: builds wait. <code>vmrunner serve</code> starts one."),
        template="nodes.html",
    )  # fmt: skip


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
                Cell(text="" if finding.late is None else units.span(finding.late), kind="number"),
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
    now, actions = parts.now(), parts.ledger.actions.latest(200)
    names = people.names(parts.ledger, {action.actor for action in actions})
    rows = [
        TableRow(
            cells=(
                Cell(text=html_times.ago(action.at, now)),
                Cell(text=names[action.actor]),
                Cell(text=action.verb),
                Cell(
                    text=action.subject,
                    link=f"/builds/{action.subject}" if action.subject.startswith("b-") else "",
                ),
                Cell(text=action.detail, kind="wrap"),
            ),
        )
        for action in actions
    ]
    columns = ("Time", "Who", "Did", "To", "With")
    return table(
        request,
        "Actions",
        columns,
        rows,
        empty="Nobody has done anything here but submit builds. Who drains launching or a pool,"
        " destroys a VM, makes or revokes a token, logs in at an issuer, or enters a VM, stands"
        " here with when and to what.",
    )


@router.get("/tokens")
def token_page(request: Request, parts: Parts, _: Admin) -> Response:
    """The tokens. No page makes one: it would be in a browser's history."""
    now = parts.now()
    rows, listed = [], parts.ledger.tokens.list()
    names = people.names(parts.ledger, {token.created_by for token in listed})
    for token in listed:
        state = "revoked" if token.revoked_at else "valid" if token.valid(now) else "expired"
        rows.append(
            TableRow(
                key=token.id,
                cells=(
                    Cell(text=token.name or names.get(token.actor, token.actor), kind="named"),
                    Cell(text=state, kind=state),
                    Cell(text=", ".join(sorted(token.scopes)), kind="named"),
                    Cell(chips=[f"{k}={v}" for k, v in sorted(token.labels.items())], kind="named"),
                    Cell(text=html_times.ago(token.created_at, now)),
                    Cell(text=names[token.created_by]),
                    Cell(text=_expiry(token, now)),
                    Cell(text=token.id),
                ),
                actions=(
                    RowAction(
                        name="Revoke",
                        post=f"/tokens/{token.id}/revoke",
                        ask=f"Revoke {token.name or token.id} for ever? Who uses it is locked out"
                        " at once. Builds that it submitted go on.",
                    ),
                )
                if state == "valid"
                else (),
            )
        )
    columns = ("Name", "State", "Scopes", "Labels", "Created", "By", "Expires", "Token")
    note = Markup("<code>vmrunner token create NAME</code> makes one.")
    return table(request, "Tokens", columns, rows, note=note, live=False)


def _expiry(token: Token, now: float) -> object:
    """The end of its validity, for people."""
    if token.expires_at is None:
        return "never"
    shown = html_times.until if token.valid(now) else html_times.ago
    return shown(token.expires_at, now)


@router.post("/tokens/{token}/revoke")
def revoke(token: str, parts: Parts, admin: Admin) -> Response:
    """End a token."""
    tokens.revoke(parts.ledger, token, by=admin.actor)
    return JSONResponse({})
