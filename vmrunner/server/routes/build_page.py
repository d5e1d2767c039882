"""The list of builds in a browser. Its filter is in the URL, as the API's is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from vmrunner.errors import ConfigError
from vmrunner.ledger.build_listing import BuildPage
from vmrunner.lib import units
from vmrunner.model import BuildRecord, BuildState, Principal, Result
from vmrunner.server.dependencies import ServerParts
from vmrunner.server.html import rendered
from vmrunner.server.routes.builds import chosen, waiting_reasons
from vmrunner.server.routes.common import IN_TURN, Parts, Reader
from vmrunner.services import costs, people
from vmrunner.services.build_filter import FilterWords

router = APIRouter(include_in_schema=False)
_PAGE: Final = 100
_COMMAND: Final = 160  # characters of a command
SHORT: Final = 12  # characters of an id that tell a build, as the command line takes them too
_MANY: Final = ("state", "result", "actor", "label")  # words of which there may be several
_ONE: Final = ("name", "provider", "since", "until")
_PLACE: Final = ("after", "newer")  # of a page in the list
_UNDER_WAY: Final = tuple(
    state.value for state in BuildState if state not in (BuildState.QUEUED, BuildState.FINISHED)
)
_FAILED: Final = (Result.FAILURE.value, Result.ERROR.value, Result.TIMEOUT.value)
#: Links above the list: what each is called, and the words that it filters by.
_CHIPS: Final[tuple[tuple[str, str, Sequence[str]], ...]] = (
    ("all", "", ()),
    ("running", "state", _UNDER_WAY),
    ("queued", "state", (BuildState.QUEUED.value,)),
    ("failed", "result", _FAILED),
    ("succeeded", "result", (Result.SUCCESS.value,)),
)
Query = Mapping[str, Sequence[str]]


@router.get("/", dependencies=[IN_TURN])
def builds(request: Request, parts: Parts, principal: Reader) -> Response:
    """Builds, newest first. What is wrong with the filter stands above an empty list."""
    query = _query(request)
    page, wrong, status = BuildPage(), "", 200
    try:
        page = _chosen(parts, principal, query)
    except ConfigError as error:
        wrong = "; ".join(filter(None, (str(error.args[0]), error.hint)))
        status = 422
    reasons = waiting_reasons(parts, principal, list(page.builds))
    return rendered(
        request,
        "builds.html",
        status,
        rows=list_rows(parts, page.builds, reasons),
        wrong=wrong,
        filter={name: query.get(name, [""])[0] for name in (*_MANY[2:], *_ONE)},
        kept=_kept(query),
        set=_set_words(query),
        chips=_chips(parts, principal, query),
        newer=_newer(query, page),
        older=_older(query, page),
        server=parts.settings().server.url or str(request.base_url).rstrip("/"),
    )


def _query(request: Request) -> Query:
    """The words of the URL that say something. `state=all` was one of former versions."""
    found = {}
    for name in (*_MANY, *_ONE, *_PLACE):
        words = [word.strip() for word in request.query_params.getlist(name)]
        if words := [word for word in words if word and (name, word) != ("state", "all")]:
            found[name] = words if name in _MANY else words[-1:]
    return found


def _chosen(parts: ServerParts, principal: Principal, query: Query) -> BuildPage:
    """The page of the list that the URL names. Raises ConfigError."""
    single = {name: query[name][0] for name in (*_ONE, *_PLACE) if name in query}
    words: FilterWords = {
        "state": query.get("state"), "result": query.get("result"), "actor": query.get("actor"),
        "name": single.get("name"), "provider": single.get("provider"),
        "since": single.get("since"), "until": single.get("until"),
    }  # fmt: skip
    return chosen(
        parts, principal, words, list(query.get("label", ())), single.get("after"), _PAGE,
        newer=single.get("newer"),
    )  # fmt: skip


def _link(query: Query, **changes: Sequence[str]) -> str:
    """The address of the list with other words in its filter, from its beginning."""
    kept = {name: words for name, words in query.items() if name not in _PLACE} | changes
    found = urlencode([(name, word) for name, words in kept.items() for word in words])
    return f"/?{found}" if found else "/"


def _newer(query: Query, page: BuildPage) -> str:
    """The address of the page before; empty on the first."""
    if "newer" in query and not page.newer:
        return ""
    if not page.builds or not query.keys() & set(_PLACE):
        return ""
    return _link(query, newer=[page.builds[0].id])


def _older(query: Query, page: BuildPage) -> str:
    return _link(query, after=[page.next]) if page.next else ""


def _chips(
    parts: ServerParts, principal: Principal, query: Query
) -> list[tuple[str, int | None, str, bool]]:
    """Links to what most people look for, with how many there are where that is cheap to say: not
    of those that the rest of the filter picks."""
    counts = parts.ledger.builds.open_counts(principal.labels)
    numbers = {
        "queued": counts.get(BuildState.QUEUED.value, 0),
        "running": sum(counts.get(state, 0) for state in _UNDER_WAY),
    }
    if query.keys() & {*_MANY[2:], *_ONE}:
        numbers = {}
    found = []
    for name, field, words in _CHIPS:
        changes = {"state": (), "result": ()} | ({field: words} if field else {})
        here = all(set(query.get(key, ())) == set(words) for key, words in changes.items())
        found.append((name, numbers.get(name), _link(query, **changes), here))
    return found


def _set_words(query: Query) -> list[tuple[str, str]]:
    """Words of the filter beside state and result, and the address of the list without each."""
    return [
        (f"{name}: {word}", _link(query, **{name: [w for w in query[name] if w != word]}))
        for name in (*_MANY[2:], *_ONE)
        for word in query.get(name, ())
    ]


def _kept(query: Query) -> list[tuple[str, str]]:
    """Words of the filter for which its form has no field."""
    found = [(name, word) for name in _MANY[:2] for word in query.get(name, ())]
    return found + [(name, word) for name in _MANY[2:] for word in query.get(name, ())[1:]]


def list_rows(
    parts: ServerParts, builds: Sequence[BuildRecord], reasons: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return builds as lists show them. `reasons`: why some wait, by id."""
    shown = people.named(parts.ledger, costs.until_now(parts.ledger, parts.providers, builds))
    return [_row(row, reasons.get(row.id, "")) for row in shown]


def _row(row: BuildRecord, waiting: str) -> dict[str, Any]:
    """A build as the list shows it."""
    begun = next((p.started for p in row.phases if p.state is not BuildState.QUEUED), None)
    ended = row.finished_at if row.finished else None
    command = " ".join(row.spec.title.split())
    return {
        "id": row.id,
        "short": row.id[2:SHORT],
        "name": row.spec.name,
        "word": row.result.value if row.result else row.state.value,
        "code": row.exit_code,
        "held": row.state is BuildState.HELD and row.result is not None,
        "labels": [f"{name}={value}" for name, value in sorted(row.spec.labels.items())],
        "who": people.who(row),
        "command": command if len(command) <= _COMMAND else f"{command[:_COMMAND]}…",
        "waiting": waiting,
        "since": begun if ended is None else None,
        "took": units.span(ended - begun) if ended is not None and begun is not None else "",
        "created_at": row.created_at,
        "cost": costs.short(row.cost),
    }
