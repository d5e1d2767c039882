"""The pages of a browser: builds and VMs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from vmrunner.config import cache_checks
from vmrunner.lib import units
from vmrunner.model import BuildRecord, BuildState, Instance, Principal
from vmrunner.server.dependencies import ServerParts
from vmrunner.server.html import rendered
from vmrunner.server.routes.builds import chosen, waiting_reasons
from vmrunner.server.routes.common import (
    Parts,
    Reader,
    Submitter,
    ask_store,
    costed,
    listing,
    visible_build,
)
from vmrunner.services import costs, people, run_again, usage_text
from vmrunner.services.artifacts import Artifacts
from vmrunner.services.build_filter import FilterWords
from vmrunner.services.documents import build_document, iso, shown, shown_document

router = APIRouter(include_in_schema=False)
_PAGE = 100


def _short(text: str, most: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}…"


# --- builds --------------------------------------------------------------------------------------


@router.get("/")
def builds(
    request: Request,
    parts: Parts,
    principal: Reader,
    state: str = "all",
    label: str = "",
    after: str | None = None,
) -> Response:
    """Builds, newest first; the filter is in the URL."""
    words: FilterWords = {"state": [] if state == "all" else [state]}
    page = chosen(parts, principal, words, [label] if label else [], after, _PAGE)
    shown, now = costs.until_now(parts.ledger, parts.providers, page.builds), parts.now()
    reasons = waiting_reasons(parts, principal, shown)
    found = [
        build_document(row)
        | {
            "age": units.span(now - row.created_at),
            "command": _short(row.spec.title),
            "cost": costs.short(row.cost),
            "waiting": reasons.get(row.id),
        }
        for row in shown
    ]

    def link(**changes: str) -> str:
        query = {"state": state, "label": label, **changes}
        kept = {name: value for name, value in query.items() if value and value != "all"}
        return "/?" + urlencode(kept) if kept else "/"

    counts = parts.ledger.builds.counts(principal.labels)
    active = sum(n for name, n in counts.items() if name != BuildState.FINISHED)
    each = [("all", None), ("active", active)]
    each += [(each_state.value, counts.get(each_state.value, 0)) for each_state in BuildState]
    return rendered(
        request,
        "builds.html",
        builds=found,
        state=state,
        label=label,
        counts=[(name, count, link(state=name)) for name, count in each],
        older=link(after=page.next) if page.next else "",
    )


@router.get("/builds/{build}")
async def build(build: str, request: Request, parts: Parts, principal: Reader) -> Response:
    """One build, with its log as it comes."""
    return await ask_store(request, lambda: _build(build, request, parts, principal))


def _build(build: str, request: Request, parts: ServerParts, principal: Principal) -> Response:
    row = costed(parts, visible_build(parts, principal, build))
    (row,) = people.named(parts.ledger, [row])
    events = parts.ledger.events.list(row.id)
    instances = parts.ledger.instances.list(build=row.id)
    document: dict[str, Any] = {
        **shown_document(
            row,
            instances,
            events,
            waiting_reasons(parts, principal, [row]).get(row.id),
            Artifacts.of(row, parts.artifact_files).known(),
        )
    }
    for artifact in document["artifacts_back"]:
        artifact["path"] = shown(artifact["path"])
    document["events"] = [
        {
            "time": iso(event.time),
            "kind": event.kind,
            "text": _short(" ".join(f"{k}={v}" for k, v in event.data.items()), 400),
        }
        for event in events
    ]
    return rendered(
        request,
        "build.html",
        b=document,
        facts=_facts(parts, row, instances, document),
        phases=_phases(row, parts.now()),
    )


def _facts(
    parts: ServerParts, row: BuildRecord, instances: Sequence[Instance], document: dict[str, Any]
) -> list[tuple[str, object]]:
    last = next((vm for vm in instances if vm.id == row.instance), None)
    remaining = None
    if last is not None and last.gone_at is None:
        remaining = last.end - parts.providers.time_at(last.provider, last.scope)
    facts = {
        "id": row.id,
        "reason": document["reason"],
        "failed step": document["failed_step"],
        "container": f"{row.spec.container} ({row.spec.runtime})",
        "provider": row.spec.provider,
        "network": str(row.spec.network),
        "source": row.spec.source,
        "caches": cache_checks.paths(row.spec.caches),
        "start": document["start"],
        "VM ends": ""
        if remaining is None
        else f"in {units.span(remaining)}"
        if remaining > 0
        else "now",
        "submitted by": people.who(row),
        "created": document["created_at"],
        "ended": document["finished_at"],
        "held until": document["hold_until"] if row.state is BuildState.HELD else "",
        "lives until": "" if row.finished or not row.was_ready else document["hold_until"],
        "cost": costs.text(row.cost),
        "used": usage_text.text(row.usage),
        "labels": ", ".join(f"{k}={v}" for k, v in sorted(row.spec.labels.items())),
    }
    return [(name, value) for name, value in facts.items() if value]


def _phases(row: BuildRecord, now: float) -> list[dict[str, object]]:
    phases = [phase for phase in row.phases if phase.state is not BuildState.FINISHED]
    if not phases:
        return []
    begun = phases[0].started
    whole = max((phases[-1].ended or now) - begun, 0.001)
    return [
        {
            "state": phase.state.value,
            "span": units.span(phase.seconds(now)),
            "x": round((phase.started - begun) / whole * 100, 2),
            "width": max(round(phase.seconds(now) / whole * 100, 2), 0.5),
        }
        for phase in phases
    ]


@router.post("/builds/{build}/again")
def again(build: str, parts: Parts, principal: Submitter) -> Response:
    """Submit the same build once more."""
    row = visible_build(parts, principal, build)
    new = run_again.run_again(parts.submission(), principal, row)
    return listing("build", [build_document(new)], status=201)
