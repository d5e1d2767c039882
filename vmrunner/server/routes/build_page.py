"""The pages of a browser: builds and VMs."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from vmrunner.lib import units
from vmrunner.model import BuildState
from vmrunner.server.html import rendered
from vmrunner.server.routes.builds import chosen, waiting_reasons
from vmrunner.server.routes.common import Parts, Reader
from vmrunner.services import costs
from vmrunner.services.build_filter import FilterWords
from vmrunner.services.documents import build_document

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
