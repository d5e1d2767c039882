"""Builds: listed, submitted, shown, cancelled."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import Field

from vmrunner.config import field_checks
from vmrunner.errors import ConfigError
from vmrunner.ledger.build_listing import BuildPage
from vmrunner.lib import units
from vmrunner.lib.config_section import Seconds, Section
from vmrunner.model import BuildRecord, BuildState, Principal, Reason, Result
from vmrunner.server import request_bodies
from vmrunner.server.build_body import BuildBody, SandboxBody
from vmrunner.server.dependencies import ServerParts
from vmrunner.server.listed_builds import ListedBuilds
from vmrunner.server.routes import query_words
from vmrunner.server.routes.answers import Answers, answers, json_body, polled
from vmrunner.server.routes.common import (
    IN_TURN,
    EmptyBody,
    PageParameters,
    Parameters,
    Parts,
    Reader,
    Submitter,
    ask_cloud,
    ask_store,
    build_documents,
    costed,
    joined_listing,
    listing,
    visible_build,
)
from vmrunner.services import admission, build_filter, build_removal, costs, people, queue_reasons
from vmrunner.services.artifacts import Artifacts
from vmrunner.services.cancel import cancel as request_cancel
from vmrunner.services.document_types import LeaseDocument
from vmrunner.services.documents import listed_document, shown_document, spec_document

router = APIRouter(tags=["builds"])
#: Bytes of what the builds of one page were asked for with: of more, the page has fewer builds.
LISTED: Final = 1 << 20


class BuildFilter(PageParameters):
    """`state`: a build's state, or `active`; `result`, `actor`: any of them; `name`: that, or with
    `*` at its end what begins so; `label`: NAME=VALUE. `since`, `until`: a time (RFC 3339), or so
    long ago (24h): of a finished build when it finished, of another when it was submitted."""

    after: str | None = Field(default=None, pattern="^b-")
    state: list[query_words.State] = Field(default_factory=list, max_length=len(BuildState))
    result: list[query_words.Outcome] = Field(default_factory=list, max_length=len(Result))
    name: query_words.NamePattern | None = Field(default=None, max_length=build_filter.LONGEST_WORD)
    actor: list[query_words.Name] = Field(default_factory=list, max_length=build_filter.MOST_ACTORS)
    provider: query_words.Name | None = Field(default=None, max_length=build_filter.LONGEST_WORD)
    since: query_words.Moment | None = None
    until: query_words.Moment | None = None
    label: list[query_words.Label] = Field(default_factory=list, max_length=field_checks.LABELS)
    mine: bool = False

    def words(self) -> build_filter.FilterWords:
        """The filter, without what is about the page."""
        return {
            "state": self.state, "result": self.result, "name": self.name, "actor": self.actor,
            "provider": self.provider, "since": self.since, "until": self.until,
        }  # fmt: skip


class BriefParameters(Parameters):
    """`brief`: the build alone, without its VMs, events and artifacts."""

    brief: bool = False


class SubmitParameters(Parameters):
    """`dry_run`: check it and start nothing."""

    dry_run: bool = False


class CancelBody(Section):
    """The reason: `owner_gone` where the waiting client is gone."""

    reason: Literal["user", "owner_gone"] = "user"


class ExtendBody(Section):
    """The time for which a held VM is wanted longer."""

    by: Seconds


#: Headers of a request that submits.
HEADERS: Final = ("IdempotencyKey", "TraceParent")


def submission(page: str) -> Answers:
    """Answers to a submission: 200 of what was there already, or for a dry run."""
    made = answers(page, status=201, problems=(409, 502), headers=("Location",))
    return made | answers(page, "SpecPage", headers=("Location",), described="It is there, or dry")


@router.get("/builds", responses=polled("BuildPage", problems=(429,)), dependencies=[IN_TURN])
def list_builds(
    request: Request, parts: Parts, principal: Reader, wanted: Annotated[BuildFilter, Query()]
) -> Response:
    """The builds that the token sees, newest first."""
    page = chosen(
        parts, principal, wanted.words(), wanted.label, wanted.after, wanted.limit,
        mine=wanted.mine,
    )  # fmt: skip
    shown = costs.until_now(parts.ledger, parts.providers, page.builds)
    names = people.of_builds(parts.ledger, shown)
    waiting = waiting_reasons(parts, principal, shown)
    starts = parts.ledger.instances.starts([row.instance for row in shown if row.instance])
    texts: ListedBuilds = request.app.state.listed_builds
    return joined_listing(
        "build",
        [
            texts.text(row, names, starts.get(row.instance or ""), waiting.get(row.id))
            for row in shown
        ],
        next_=page.next,
    )


def chosen(
    parts: ServerParts,
    principal: Principal,
    words: build_filter.FilterWords,
    labels: list[str],
    after: str | None,
    limit: int,
    *,
    mine: bool = False,
    newer: str | None = None,
    sandbox: bool | None = None,
) -> BuildPage:
    """Return the first of the builds that a filter picks of those that the principal sees; `mine`:
    of those that its very tenant submitted; `newer`: the last of those that are newer than this."""
    choice = build_filter.choice(
        words,
        parts.now(),
        labels=units.labels(labels),
        issuers=parts.settings().server.issuers,
        own=principal.labels,
        tenant=principal.tenant if mine else None,
        before=after,
        above=newer,
        sandbox=sandbox,
    )
    return parts.ledger.builds.page(choice, limit, LISTED)


def waiting_reasons(
    parts: ServerParts, principal: Principal, rows: list[BuildRecord]
) -> dict[str, str]:
    """Reasons why those of them that are queued wait, as far as the principal may know."""
    return queue_reasons.waiting(parts.ledger, parts.limits(), rows, principal, parts.queue)


_EXAMPLE: Final = {
    "steps": ["make test"],
    "container": "debian:trixie",
    "labels": {"team": "core"},
    "timeout": "20m",
    "network": {"allow": ["packages.example.org"]},
}


@router.post(
    "/builds",
    status_code=201,
    responses=submission("BuildPage"),
    openapi_extra=json_body(BuildBody, _EXAMPLE, HEADERS),
)
async def submit_build(
    request: Request,
    parts: Parts,
    principal: Submitter,
    wanted: Annotated[SubmitParameters, Query()],
) -> JSONResponse:
    """Queue a build. 200 for one that had its idempotency key already, and for a dry run, whose
    answer is what would be submitted."""
    return await submitted(request, parts, principal, BuildBody, dry_run=wanted.dry_run)


async def submitted(
    request: Request,
    parts: ServerParts,
    principal: Principal,
    kind: type[BuildBody | SandboxBody],
    *,
    dry_run: bool,
) -> JSONResponse:
    """Queue what the body asks for."""
    body = _keyed(await request_bodies.model(request, kind), request)
    if dry_run:
        checked = await ask_cloud(
            request,
            lambda: admission.check(
                parts.submission(),
                principal,
                body.request,
                source=body.source,
                name=body.source_name,
            ),
        )
        return listing("build_spec", [spec_document(checked.spec)], warnings=checked.warnings)
    done = await ask_cloud(
        request,
        lambda: admission.submit(
            parts.submission(),
            principal,
            body.request,
            source=body.source,
            name=body.source_name,
            foreground=body.foreground,
            now=parts.now(),
            traceparent=request.headers.get("traceparent", ""),
        ),
    )
    answer = listing(
        "build" if kind is BuildBody else "sandbox",
        await run_in_threadpool(build_documents, parts, [done.build]),
        status=201 if done.new else 200,
        warnings=done.warnings,
        new=done.new,
    )
    place = "builds" if kind is BuildBody else "sandboxes"
    answer.headers["Location"] = f"/api/v1/{place}/{done.build.id}"
    return answer


def _keyed(body: BuildBody | SandboxBody, request: Request) -> BuildBody | SandboxBody:
    """The body with the idempotency key of the request's head. Raises ConfigError where it
    has another."""
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return body
    key = keys[0]
    if set(keys) != {key}:
        raise ConfigError("Idempotency-Key: it is there twice", hint="say one of them")
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]  # as the IETF's draft has it
    key = field_checks.idempotency_key(key, "Idempotency-Key")
    if not key.isascii():
        raise ConfigError("Idempotency-Key: it is not ASCII", hint="say it in the body")
    if body.idempotency_key not in (None, key):
        raise ConfigError(
            "idempotency_key: the header Idempotency-Key has another", hint="say one of them"
        )
    return body.model_copy(update={"idempotency_key": key})


@router.get("/builds/{build}", responses=polled("BuildPage", problems=(409,)))
async def show_build(
    build: str,
    request: Request,
    parts: Parts,
    principal: Reader,
    wanted: Annotated[BriefParameters, Query()],
) -> JSONResponse:
    """One build, with its steps, VMs, events and artifacts."""
    row = await run_in_threadpool(
        lambda: people.named(parts.ledger, [costed(parts, visible_build(parts, principal, build))])[
            0
        ]
    )
    if wanted.brief:
        return await run_in_threadpool(_brief, parts, principal, row)
    return await ask_store(request, lambda: _whole(parts, principal, row))


def _brief(parts: ServerParts, principal: Principal, row: BuildRecord) -> JSONResponse:
    starts = parts.ledger.instances.starts([row.instance] if row.instance else [])
    why = waiting_reasons(parts, principal, [row]).get(row.id)
    return listing("build", [listed_document(row, starts.get(row.instance or ""), why)])


def _whole(parts: ServerParts, principal: Principal, row: BuildRecord) -> JSONResponse:
    document = shown_document(
        row,
        parts.ledger.instances.list(build=row.id),
        parts.ledger.events.list(row.id),
        waiting_reasons(parts, principal, [row]).get(row.id),
        Artifacts.of(row, parts.artifact_files).known(),
    )
    return listing("build", [document])


@router.post(
    "/builds/{build}/cancel",
    responses=answers("BuildPage", problems=(409,)),
    openapi_extra=json_body(CancelBody, {"reason": "user"}),
)
async def cancel_build(
    build: str, request: Request, parts: Parts, principal: Submitter
) -> JSONResponse:
    """Cancel it: it ends, and its VM dies. One that has finished stays as it is."""
    row = await run_in_threadpool(visible_build, parts, principal, build)
    body = await request_bodies.model(request, CancelBody)
    row = await run_in_threadpool(
        request_cancel,
        parts.ledger,
        row.id,
        wake=parts.wake,
        reason=Reason(body.reason),
        by=principal.actor,
    )
    return listing("build", await run_in_threadpool(build_documents, parts, [row]))


@router.post(
    "/builds/{build}/extend",
    responses=answers("BuildPage", problems=(409, 502)),
    openapi_extra=json_body(ExtendBody, {"by": "20m"}),
)
async def extend_build(
    build: str, request: Request, parts: Parts, principal: Submitter
) -> JSONResponse:
    """Keep a held build's VM longer, never past its deadline."""
    row = await run_in_threadpool(visible_build, parts, principal, build)
    body = await request_bodies.model(request, ExtendBody)

    def work() -> BuildRecord:
        now = parts.providers.time_at(row.spec.provider, ask=True)
        return parts.ledger.builds.extend(row.id, body.by, now, by=principal.actor)

    held = await ask_cloud(request, work)
    return listing("build", await run_in_threadpool(build_documents, parts, [held]))


@router.post(
    "/builds/{build}/remove",
    responses=answers("BuildPage", problems=(409,)),
    openapi_extra=json_body(EmptyBody, {}),
)
async def remove_build(
    build: str, request: Request, parts: Parts, principal: Submitter
) -> JSONResponse:
    """Remove the log and the artifacts of a build that ended. Its row and events stay."""
    row = await run_in_threadpool(visible_build, parts, principal, build)
    await request_bodies.model(request, EmptyBody)
    await run_in_threadpool(build_removal.remove, parts.ledger, row, parts.paths.artifacts)
    return listing("build", await run_in_threadpool(build_documents, parts, [row]))


@router.post("/builds/{build}/lease", responses=answers("LeaseDocument", problems=(409,)))
def renew_lease(build: str, parts: Parts, principal: Submitter) -> JSONResponse:
    """Say that the client of a foreground build is there: for 60 s more; 0 where it has ended."""
    row = visible_build(parts, principal, build)
    if row.finished:
        return JSONResponse(LeaseDocument(seconds=0))
    until = parts.now() + admission.SUBMITTER_LEASE
    parts.ledger.submitter_leases.renew(row.id, until)
    return JSONResponse(LeaseDocument(seconds=admission.SUBMITTER_LEASE))
