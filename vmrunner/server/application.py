"""The application: routes, authentication, errors."""

from __future__ import annotations

from anyio import CapacityLimiter
from fastapi import FastAPI

from vmrunner.model import Principal
from vmrunner.server import api_document, login, problems, request_bodies
from vmrunner.server.authentication import Authentication
from vmrunner.server.caller_slots import CallerSlots
from vmrunner.server.change_watcher import ChangeWatcher
from vmrunner.server.dependencies import ServerParts
from vmrunner.server.entries import PortVisits
from vmrunner.server.entry_threads import EntryThreads
from vmrunner.server.fleet_cache import CloudLook
from vmrunner.server.html import STATIC, PageFiles, of_problem
from vmrunner.server.kept_answers import KeptAnswers
from vmrunner.server.listed_builds import ListedBuilds
from vmrunner.server.metrics import Metrics
from vmrunner.server.news_stream import SharedPages
from vmrunner.server.oidc import IssuerKeys, OidcExchange
from vmrunner.server.oidc_login import OidcLogins
from vmrunner.server.packed_document import PackedDocument
from vmrunner.server.port_connections import PortConnections
from vmrunner.server.port_pages import PortPages
from vmrunner.server.request_ids import RequestIds
from vmrunner.server.routes import (
    admin_pages,
    build_details,
    build_page,
    caches,
    costs,
    overview_page,
    ports,
    system,
    terminals,
    vm_page,
)
from vmrunner.server.routes.common import text_of
from vmrunner.server.tenant_turns import TenantTurns
from vmrunner.server.transfer import Transfer
from vmrunner.services import fleet
from vmrunner.services.junit_reports import ReadReports
from vmrunner.services.overview import BuildHistory
from vmrunner.services.uploads import ComingBytes

UPLOADS = 4  # of one token at once
LOOKS = 2  # of one token at once: each asks all clouds
SANDBOX_CALLS = 40  # of one token at once, each of which waits for a VM: a sandbox runs 32 commands
SANDBOX_THREADS = 640  # for all of them: a silent VM holds up no other request
CLOUD_THREADS = 40  # for requests that ask a cloud: one that hangs holds up no other request
SEARCHES = 2  # in logs, of one token at once
SEARCH_THREADS = 2  # for all of them: each computes, for a second at most
STORE_THREADS = 40  # for what reads or writes the store, likewise
HISTORY_KEPT = 30.0  # seconds that a history of the overview is kept
EXCHANGES = 64  # at once: an identity may wait for its issuer, and no other request for that


def make(parts: ServerParts, *, everybody: Principal | None = None) -> FastAPI:
    """Return the application over these parts. `everybody`: as whom all callers are taken, without
    a token."""
    app = FastAPI(
        title="vmrunner",
        openapi_url=None,  # `system` has it, as bytes that are made once
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # to an address made of what the caller calls us, without TLS
        generate_unique_id_function=api_document.short_name,
    )
    app.state.parts = parts
    app.state.watcher = ChangeWatcher(lambda build: parts.ledger.builds.progress(build))
    app.state.metrics = Metrics(parts)
    app.state.tenant_turns = TenantTurns()
    app.state.listed_builds = ListedBuilds(text_of)
    app.state.upload_slots = CallerSlots("uploads", lambda: UPLOADS)
    app.state.coming_bytes = ComingBytes()
    app.state.stream_slots = CallerSlots("streams", lambda: parts.settings().server.streams)
    app.state.search_slots = CallerSlots("searches in logs", lambda: SEARCHES)
    app.state.search_threads = CapacityLimiter(SEARCH_THREADS)
    app.state.test_reports = ReadReports()
    app.state.large_bodies = request_bodies.LargeBodies()
    app.state.look_slots = CallerSlots("looks at the clouds", lambda: LOOKS)
    app.state.sandbox_slots = CallerSlots("calls to sandboxes", lambda: SANDBOX_CALLS)
    app.state.terminal_slots = CallerSlots("terminals", lambda: parts.settings().server.terminals)
    app.state.entry_threads = EntryThreads()
    app.state.port_slots = CallerSlots("ports", lambda: parts.settings().server.ports)
    app.state.port_connections = PortConnections(app.state.entry_threads)
    app.state.port_visits = PortVisits()
    app.state.sandbox_threads = CapacityLimiter(SANDBOX_THREADS)
    app.state.cloud_threads = CapacityLimiter(CLOUD_THREADS)
    app.state.store_threads = CapacityLimiter(STORE_THREADS)
    app.state.pages = SharedPages(threads=app.state.store_threads)
    app.state.histories = KeptAnswers[BuildHistory](HISTORY_KEPT)
    app.state.cloud_look = CloudLook(lambda: fleet.look(parts.ledger, parts.providers))
    issuer_keys = IssuerKeys(parts.now)
    app.state.oidc = OidcExchange(issuer_keys)
    app.state.logins = OidcLogins(issuer_keys)
    app.state.oidc_threads = CapacityLimiter(EXCHANGES)
    problems.install(app, of_problem)
    api_document.include(app)
    app.state.api_document = PackedDocument(lambda: api_document.document(app))
    for part in (terminals, ports):
        app.include_router(part.router, prefix=api_document.API)
    for part in (system, login, build_page, build_details, overview_page, vm_page, admin_pages):
        app.include_router(part.router)
    for routes in (costs, caches):
        app.include_router(routes.pages)
    app.mount("/static", PageFiles(directory=STATIC))
    app.add_middleware(Transfer)
    app.add_middleware(Authentication, parts=parts, everybody=everybody)
    app.add_middleware(PortPages, parts=parts, everybody=everybody)
    app.add_middleware(RequestIds)  # last: outermost
    return app
