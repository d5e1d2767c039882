"""Artifacts of a build: listed, and served as bytes that no browser takes for a page."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from vmrunner.model import BuildRecord, Principal
from vmrunner.server.caller_slots import CallerStream
from vmrunner.server.dependencies import ServerParts
from vmrunner.server.routes.answers import BINARY, OCTETS, TAR, answers
from vmrunner.server.routes.common import Parts, Reader, ask_store, listing, visible_build
from vmrunner.server.routes.logs import INERT
from vmrunner.services import junit_reports
from vmrunner.services.artifact_archive import archive, zipped
from vmrunner.services.artifacts import Artifacts
from vmrunner.services.documents import artifact_document, tests_document
from vmrunner.services.junit_reports import ReadReports, ReportedTests

router = APIRouter(tags=["artifacts"])
ZIP = "application/zip"


@router.get(
    "/builds/{build}/artifacts",
    responses=answers("ArtifactPage", problems=(409, 429), others={TAR: BINARY, ZIP: BINARY}),
)
async def list_artifacts(build: str, request: Request, parts: Parts, principal: Reader) -> Response:
    """List what the build brought back; with `Accept: application/x-tar` all of it, or with
    `application/zip`."""
    return await ask_store(request, lambda: _all(build, request, parts, principal))


def _all(build: str, request: Request, parts: ServerParts, principal: Principal) -> Response:
    row = visible_build(parts, principal, build)
    found = Artifacts.of(row, parts.artifact_files)
    for media_type, packed in ((TAR, archive), (ZIP, zipped)):
        if media_type in request.headers.get("accept", ""):
            return CallerStream(
                packed(found.files()),
                slots=request.app.state.stream_slots,
                principal=principal,
                headers=INERT,
                media_type=media_type,
            )
    return listing("artifact", map(artifact_document, found))


@router.get(
    "/builds/{build}/artifacts.zip",
    responses=answers(problems=(409, 429), others={ZIP: BINARY}, described="A zip"),
)
async def zip_artifacts(
    build: str, request: Request, parts: Parts, principal: Reader
) -> CallerStream:
    """All that the build brought back, as a zip, for a browser."""

    def work() -> CallerStream:
        row = visible_build(parts, principal, build)
        name = quote(f"{row.spec.name or 'build'}-{row.id}.zip", safe="")
        return CallerStream(
            zipped(Artifacts.of(row, parts.artifact_files).files()),
            slots=request.app.state.stream_slots,
            principal=principal,
            headers={**INERT, "Content-Disposition": f"attachment; filename*=UTF-8''{name}"},
            media_type=ZIP,
        )

    return await ask_store(request, work)


@router.get("/builds/{build}/tests", responses=answers("TestsPage", problems=(409,)))
async def read_tests(build: str, request: Request, parts: Parts, principal: Reader) -> Response:
    """Results of the tests in the JUnit reports among the artifacts (`*junit*.xml`,
    `TEST-*.xml`); no document where there is none."""

    def work() -> Response:
        row = visible_build(parts, principal, build)
        found = tests_of(request, parts, row)
        return listing("tests", [] if found is None else [tests_document(found)])

    return await ask_store(request, work)


def tests_of(request: Request, parts: ServerParts, row: BuildRecord) -> ReportedTests | None:
    """The results of a build's tests; None: it brought no report, or none is there yet."""
    reports: ReadReports = request.app.state.test_reports
    return junit_reports.of_build(row, parts.artifact_files, reports.of)


@router.get(
    "/builds/{build}/artifacts/{path:path}",
    responses=answers(
        problems=(409, 429),
        others={OCTETS: BINARY},
        headers=("Content-Disposition",),
        described="The file",
    ),
)
async def get_artifact(
    build: str, path: str, request: Request, parts: Parts, principal: Reader
) -> CallerStream:
    """One file, by its path as the list has it."""
    return await ask_store(request, lambda: _one(build, path, request, parts, principal))


def _one(
    build: str, path: str, request: Request, parts: ServerParts, principal: Principal
) -> CallerStream:
    row = visible_build(parts, principal, build)
    pieces, size = Artifacts.of(row, parts.artifact_files).read(path)
    name = quote(path.rpartition("/")[2], safe="")
    headers = {
        **INERT,
        "Content-Length": str(size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
    }
    return CallerStream(
        pieces,
        slots=request.app.state.stream_slots,
        principal=principal,
        headers=headers,
        media_type="application/octet-stream",
    )
