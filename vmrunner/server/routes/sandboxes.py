"""Sandboxes: made, listed, ended; their commands and files."""

from __future__ import annotations

import base64
import functools
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import Field, StrictBool

from vmrunner.config import field_checks
from vmrunner.lib.config_section import Seconds, Section
from vmrunner.model import CommandOrder, Principal
from vmrunner.server import byte_pipes, request_bodies
from vmrunner.server.build_body import SandboxBody
from vmrunner.server.caller_slots import CallerStream
from vmrunner.server.dependencies import ServerParts
from vmrunner.server.routes.answers import BINARY, OCTETS, TAR, answers, json_body, octets, polled
from vmrunner.server.routes.builds import (
    HEADERS,
    BuildFilter,
    SubmitParameters,
    chosen,
    submission,
    submitted,
)
from vmrunner.server.routes.common import (
    IN_TURN,
    Parameters,
    Parts,
    Reader,
    Submitter,
    build_documents,
    costed,
    enterable_build,
    listing,
    visible_sandbox,
)
from vmrunner.server.routes.logs import INERT
from vmrunner.services.cancel import cancel
from vmrunner.services.document_types import (
    CommandNameDocument,
    CommandOutputDocument,
    PathDocument,
)
from vmrunner.services.documents import command_document, file_document
from vmrunner.services.sandbox_paths import absolute

if TYPE_CHECKING:
    from vmrunner.services.sandboxes import SandboxClient

T = TypeVar("T")

router = APIRouter(tags=["sandboxes"])
FILE: Final = 16 << 30  # bytes of one upload
INPUT: Final = 8 << 20  # … of stdin in one request
OUTPUT_WAIT: Final = 20.0  # seconds that output is waited for, or that input is read
#: Problems of what asks a sandbox's VM.
_ASKED: Final = (409, 410, 429, 502, 504)


class CommandBody(Section):
    """A command: `shell` is a line for /bin/sh, `argv` one command. The caller chooses its id; the
    same id starts once."""

    id: Annotated[str, Field(pattern=f"^{field_checks.COMMAND_ID.pattern}$")]
    argv: list[str] = Field(min_length=1, max_length=10_000)
    title: Annotated[str, Field(max_length=200)] = ""
    env: dict[str, str] = Field(default_factory=dict, json_schema_extra=field_checks.VARIABLES)
    cwd: str = "/work"
    user: str | None = None
    timeout: Seconds | None = None
    stdin: StrictBool = False

    @property
    def order(self) -> CommandOrder:
        """Return it as the services take it. Raises ConfigError."""
        return field_checks.command_order(
            CommandOrder(
                id=self.id,
                argv=tuple(self.argv),
                title=self.title or " ".join(self.argv),
                env=self.env,
                cwd=self.cwd,
                user=self.user,
                timeout=self.timeout,
                stdin=self.stdin,
            )
        )


class OutputParameters(Parameters):
    """Offsets to read on from, of the bytes as they were written; `wait`: seconds for some."""

    stdout: int = Field(default=0, ge=0, le=2**40)
    stderr: int = Field(default=0, ge=0, le=2**40)
    wait: float = Field(default=OUTPUT_WAIT, ge=0, le=OUTPUT_WAIT)


class InputParameters(Parameters):
    """`offset`: where in its stdin the body stands; `last`: nothing follows."""

    offset: int = Field(default=0, ge=0, le=2**60)
    last: bool = False


class SignalParameters(Parameters):
    """The signal's number: KILL unless said."""

    signal: int = Field(default=int(signal.SIGKILL), ge=1, le=64)


class FileParameters(Parameters):
    """A path from the root, or below /work."""

    path: str = Field(min_length=1, max_length=4096)


class ReadParameters(FileParameters):
    """`what`: the bytes of a file, what is in a directory, or what the path is."""

    what: Literal["content", "list", "stat"] = "content"


class WriteParameters(FileParameters):
    """`what`: the body is a file, or there is none and a directory is made."""

    what: Literal["content", "dir"] = "content"


async def reached(parts: ServerParts, principal: Principal, word: str) -> SandboxClient:
    """A client of a sandbox that the principal may use."""
    find = functools.partial(enterable_build, sandbox=True)
    row = await run_in_threadpool(find, parts, principal, word)
    return parts.sandbox(row.id)


async def asked(request: Request, principal: Principal, work: Callable[[], T]) -> T:
    """Ask a VM, in a thread of its own: it may answer as late as it likes."""
    state = request.app.state
    with state.sandbox_slots.held(principal):
        return await to_thread.run_sync(work, limiter=state.sandbox_threads)


@router.post(
    "/sandboxes",
    status_code=201,
    responses=submission("SandboxPage"),
    openapi_extra=json_body(SandboxBody, {"container": "debian:trixie", "ttl": "30m"}, HEADERS),
)
async def create_sandbox(
    request: Request,
    parts: Parts,
    principal: Submitter,
    wanted: Annotated[SubmitParameters, Query()],
) -> JSONResponse:
    """Queue a sandbox: it is ready once its state is `running`. 200 for one that had its
    idempotency key already, and for a dry run."""
    return await submitted(request, parts, principal, SandboxBody, dry_run=wanted.dry_run)


@router.get("/sandboxes", responses=polled("SandboxPage", problems=(429,)), dependencies=[IN_TURN])
def list_sandboxes(
    parts: Parts, principal: Reader, wanted: Annotated[BuildFilter, Query()]
) -> JSONResponse:
    """The sandboxes that the token sees, newest first."""
    page = chosen(
        parts, principal, wanted.words(), wanted.label, wanted.after, wanted.limit,
        mine=wanted.mine, sandbox=True,
    )  # fmt: skip
    return listing("sandbox", build_documents(parts, page.builds), next_=page.next)


@router.get("/sandboxes/{sandbox}", responses=polled("SandboxPage", problems=(409,)))
def show_sandbox(sandbox: str, parts: Parts, principal: Reader) -> JSONResponse:
    """One sandbox."""
    row = costed(parts, visible_sandbox(parts, principal, sandbox))
    return listing("sandbox", build_documents(parts, [row]))


@router.delete("/sandboxes/{sandbox}", responses=answers("SandboxPage", problems=(409,)))
def end_sandbox(sandbox: str, parts: Parts, principal: Submitter) -> JSONResponse:
    """End it, with its VM. One that has ended stays as it is."""
    row = visible_sandbox(parts, principal, sandbox)
    row = cancel(parts.ledger, row.id, wake=parts.wake, by=principal.actor)
    return listing("sandbox", build_documents(parts, [row]))


# --- commands -------------------------------------------------------------------------------------


@router.post(
    "/sandboxes/{sandbox}/execs",
    status_code=201,
    responses=answers("CommandNamePage", problems=_ASKED, status=201),
    openapi_extra=json_body(CommandBody, {"id": "c1", "argv": ["make", "test"]}),
)
async def start_command(
    sandbox: str, request: Request, parts: Parts, principal: Submitter
) -> JSONResponse:
    """Start a command, unless its id was started."""
    client = await reached(parts, principal, sandbox)
    body = await request_bodies.model(request, CommandBody)
    await asked(request, principal, lambda: client.start(body.order))
    return listing("command", [CommandNameDocument(id=body.id)], status=201)


@router.get("/sandboxes/{sandbox}/execs", responses=answers("CommandPage", problems=_ASKED))
async def list_commands(
    sandbox: str, request: Request, parts: Parts, principal: Reader
) -> JSONResponse:
    """The commands that were started, the oldest first."""
    client = await reached(parts, principal, sandbox)
    return listing(
        "command", map(command_document, await asked(request, principal, client.commands))
    )


@router.get(
    "/sandboxes/{sandbox}/execs/{command}",
    responses=answers("CommandOutputPage", problems=_ASKED),
)
async def read_output(
    sandbox: str,
    command: str,
    request: Request,
    parts: Parts,
    principal: Reader,
    wanted: Annotated[OutputParameters, Query()],
) -> JSONResponse:
    """Output of a command from these offsets on, as base64, with the offsets to go on from; once
    all was read, `end` says how it ended."""
    client = await reached(parts, principal, sandbox)
    output = await asked(
        request,
        principal,
        lambda: client.read(command, wanted.stdout, wanted.stderr, wanted.wait),
    )
    end = output.end
    document: CommandOutputDocument = {
        "id": command,
        "stdout": base64.b64encode(output.stdout).decode(),
        "stderr": base64.b64encode(output.stderr).decode(),
        "next": {"stdout": output.next_stdout, "stderr": output.next_stderr},
        "end": None
        if end is None
        else {
            "exit_code": end.exit_code,
            "timed_out": end.timed_out,
            "truncated": end.truncated,
            "seconds": end.seconds,
        },
    }
    return listing("command_output", [document])


@router.put(
    "/sandboxes/{sandbox}/execs/{command}/stdin",
    responses=answers("CommandNamePage", problems=_ASKED),
    openapi_extra=octets(OCTETS),
)
async def send_input(
    sandbox: str,
    command: str,
    request: Request,
    parts: Parts,
    principal: Submitter,
    wanted: Annotated[InputParameters, Query()],
) -> JSONResponse:
    """Send what stands at that offset of its stdin. What was taken already is not sent again. 504
    when it has not read all of it in time: then the same again."""
    client = await reached(parts, principal, sandbox)
    state = request.app.state
    with state.sandbox_slots.held(principal):  # first: each holds that much memory
        data = await request_bodies.whole(request, INPUT)
        await to_thread.run_sync(
            lambda: client.send_input(
                command, wanted.offset, data, last=wanted.last, wait=OUTPUT_WAIT
            ),
            limiter=state.sandbox_threads,
        )
    return listing("command", [CommandNameDocument(id=command, taken=wanted.offset + len(data))])


@router.delete(
    "/sandboxes/{sandbox}/execs/{command}",
    responses=answers("CommandNamePage", problems=_ASKED),
)
async def end_command(
    sandbox: str,
    command: str,
    request: Request,
    parts: Parts,
    principal: Submitter,
    wanted: Annotated[SignalParameters, Query()],
) -> JSONResponse:
    """Send a signal to all processes of a command. One that ended is left alone."""
    client = await reached(parts, principal, sandbox)
    await asked(request, principal, lambda: client.signal(command, wanted.signal))
    return listing("command", [CommandNameDocument(id=command)])


# --- files ----------------------------------------------------------------------------------------


@router.get(
    "/sandboxes/{sandbox}/files",
    responses=answers("FilePage", problems=_ASKED, others={OCTETS: BINARY, TAR: BINARY}),
)
async def read_file(
    sandbox: str,
    request: Request,
    parts: Parts,
    principal: Submitter,
    wanted: Annotated[ReadParameters, Query()],
) -> Response:
    """The bytes of a file; with `Accept: application/x-tar` a tar of it, or of what is in a
    directory. It wants scope `submit`: secrets are files too."""
    client = await reached(parts, principal, sandbox)
    path = absolute(wanted.path)
    if wanted.what == "list":
        found = await asked(request, principal, lambda: client.list_files(path))
        return listing("file", map(file_document, found))
    if wanted.what == "stat":
        entry = await asked(request, principal, lambda: client.stat_file(path))
        return listing("file", [file_document(entry)])
    tar = TAR in request.headers.get("accept", "")
    read = client.pack_files if tar else client.read_file
    with request.app.state.sandbox_slots.held(principal):
        content = await byte_pipes.pulled(lambda take: read(path, take))
    return CallerStream(
        content,
        slots=request.app.state.stream_slots,
        principal=principal,
        headers=INERT | {"Content-Disposition": "attachment"},
        media_type=TAR if tar else "application/octet-stream",
    )


@router.put(
    "/sandboxes/{sandbox}/files",
    responses=answers("PathPage", problems=_ASKED),
    openapi_extra=octets(OCTETS, TAR),
)
async def write_file(
    sandbox: str,
    request: Request,
    parts: Parts,
    principal: Submitter,
    wanted: Annotated[WriteParameters, Query()],
) -> JSONResponse:
    """Write a file, whole or not at all, and the directories above it. A body of the type
    application/x-tar is unpacked below the path."""
    client = await reached(parts, principal, sandbox)
    path = absolute(wanted.path)
    if wanted.what == "dir":
        await asked(request, principal, lambda: client.make_dir(path))
        return listing("file", [PathDocument(path=path)])
    tar = request.headers.get("content-type", "").startswith(TAR)
    write = client.unpack_files if tar else client.write_file
    with request.app.state.upload_slots.held(principal):
        await byte_pipes.pushed(
            request_bodies.stream(request, FILE),
            lambda pieces: write(path, pieces),
        )
    return listing("file", [PathDocument(path=path)])


@router.delete("/sandboxes/{sandbox}/files", responses=answers("PathPage", problems=_ASKED))
async def remove_file(
    sandbox: str,
    request: Request,
    parts: Parts,
    principal: Submitter,
    wanted: Annotated[FileParameters, Query()],
) -> JSONResponse:
    """Remove a file, or a directory with all in it."""
    client = await reached(parts, principal, sandbox)
    path = absolute(wanted.path)
    await asked(request, principal, lambda: client.remove_file(path))
    return listing("file", [PathDocument(path=path)])
