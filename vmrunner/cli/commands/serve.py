"""`vmrunner serve`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import fields
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import debugging, shell_of
from vmrunner.errors import ConfigError, Conflict, LedgerError

if TYPE_CHECKING:
    from vmrunner.engine.engine import Engine
    from vmrunner.ledger import Ledger
    from vmrunner.model import Principal
    from vmrunner.reaper.report import Report
    from vmrunner.runtime.service_parts import ServiceParts
    from vmrunner.server.dependencies import ServerParts
    from vmrunner.server.listener import HttpListener

log = logging.getLogger("vmrunner.serve")


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


def serve(
    context: typer.Context,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End when nothing is left to do.")
    ] = False,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Serve the HTTP API there; default: server.listen."),
    ] = None,
    insecure_no_auth: Annotated[
        bool,
        typer.Option(
            "--insecure-no-auth", help="Without tokens: every user of this host may do all."
        ),
    ] = False,
    log_format: Annotated[
        LogFormat, typer.Option(help="The format of its own log, on stderr.")
    ] = LogFormat.TEXT,
) -> int:
    """Drive builds and reap VMs until it is stopped. With --listen or `server.listen` it also has
    the HTTP API and the page. SIGTERM leaves running builds to the next engine; SIGHUP reads the
    configuration again."""
    from vmrunner.config import pools, sources
    from vmrunner.reaper.clock_witness import ClockWitness
    from vmrunner.runtime.background import BACKGROUND, SERVE
    from vmrunner.runtime.daemon import Daemon, DaemonUpdate
    from vmrunner.services import reap
    from vmrunner.services.outbox_senders import OutboxTasks

    app = shell_of(context).app
    output.hand_over()
    log_to_stderr(log_format)

    def new_engine() -> Engine:
        app.ledgers.open(make=True)
        return app.engine(BACKGROUND if until_idle else SERVE)

    def reap_without_ledger() -> Report:
        return reap.reap(app.ledgers, app.providers, app.limits(), app.paths, by=None)

    address = listen or app.settings.server.listen
    if address:
        _http("server.listen")
    everybody = _without_tokens(address) if insecure_no_auth else None
    engine = new_engine() if until_idle else _patiently(new_engine, reap_without_ledger)
    ledger = app.ledger
    outbox = OutboxTasks(ledger, app.providers, ClockWitness(ledger, engine.id).look)

    def renew() -> DaemonUpdate:
        settings = sources.load().settings
        new_pools = pools.pool_specs(settings)  # first: what cannot be refuses all of it
        providers = app.providers.renew(settings, engine.context.providers)
        return DaemonUpdate(
            providers=providers,
            limits=app.limits(),
            cron=settings.reaper.sweep,
            pools=new_pools,
            webhooks=outbox.senders(settings),
            budgets=app.budgets(),
        )

    def prepare() -> None:
        from vmrunner.services import templates

        for provider in engine.context.providers.values():
            templates.make_wanted(provider, ledger, engine.id)

    from vmrunner.services.prices import refresh

    def tidy() -> None:
        from vmrunner.services import alarms, templates
        from vmrunner.services.gc import gc

        try:
            removed = gc(ledger, app.settings, app.paths, lambda: app.store, by=None)
            alarms.write_left(ledger, removed, time.time())
        except Conflict as error:  # the clock is in doubt
            log.error("%s", error)  # noqa: TRY400 - nothing broke
        templates.trim(engine.context.providers.values())

    outbox.declare()  # before anything ends
    providers = ", ".join(sorted(engine.context.providers)) or "none"
    log.info("serving %s; providers: %s; %s", app.ledgers.shown, providers, _who_reaps(ledger))
    listener = _listener(app.service_parts(), address, everybody) if address else None
    daemon = Daemon(
        engine,
        ledger,
        cron=app.settings.reaper.sweep,
        until_idle=until_idle,
        tidy=tidy,
        upload=app.uploader().run,
        prepare=prepare,
        webhooks=outbox.senders(app.settings),
        watch=outbox.watch,
        prices=lambda: refresh(ledger, engine.context.providers),
        renew=renew,
    )
    try:
        daemon.run()
    finally:
        if listener is not None:
            listener.close()
    log.info("stopped; what runs goes on in its VM, and the next engine takes it over")
    return exit_codes.OK


def _who_reaps(ledger: Ledger) -> str:
    from vmrunner.reaper.turns import is_reapers

    holders = {holder for name, holder in ledger.engines.holders().items() if is_reapers(name)}
    living = holders & {member.id for member in ledger.engines.list()}
    if not living:
        return "this engine reaps"
    return f"engine {', '.join(sorted(living))} reaps what both can reach"


def _patiently(new_engine: Callable[[], Engine], reap: Callable[[], Report]) -> Engine:
    """An engine, as soon as the ledger's database answers. What needs none is done meanwhile."""
    from vmrunner.reaper.pass_log import PassLog
    from vmrunner.runtime import daemon

    tell = PassLog(time.monotonic)
    while True:
        try:
            return new_engine()
        except LedgerError:
            tell(reap())
            threading.Event().wait(daemon.PASS)


def log_to_stderr(form: LogFormat) -> None:
    """Write what happens to stderr, as a service does."""
    logging.basicConfig(level=logging.DEBUG if debugging() else logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_formatter(form))
    for chatty in ("alembic", "apscheduler", "fabric", "httpcore2", "httpx2", "invoke", "paramiko"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _formatter(form: LogFormat) -> logging.Formatter:
    if form is LogFormat.JSON:
        return output.JsonFormatter()
    return output.PlainFormatter(
        "%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z"
    )


def _http(field: str) -> Any:
    """Return the module that listens. Raises ConfigError, which names `field`, where its packages
    are not installed."""
    try:
        from vmrunner.server import listener
    except ImportError as error:
        raise ConfigError(
            f"{field}: {error.name} is not installed", hint="pip install 'vmrunner[server]'"
        ) from None
    return listener


def _listener(parts: ServiceParts, address: str, everybody: Principal | None) -> HttpListener:
    """The HTTP API, listening."""
    listener = _http("server.listen")
    found: HttpListener = listener.HttpListener(
        listener.parse(address), server_parts(parts), everybody=everybody
    )
    log.info("the HTTP API is at %s/api/v1", found.url)
    if not listener.is_loopback(listener.parse(address)[0]):
        log.warning("tokens cross the network in the clear unless a proxy in front has TLS")
    return found


def server_parts(parts: ServiceParts) -> ServerParts:
    """All parts that a server works with."""
    from vmrunner.lib import wakeup
    from vmrunner.server.dependencies import ServerParts
    from vmrunner.server.sandbox_clients import SandboxClients
    from vmrunner.services.entering import Entrance
    from vmrunner.services.submit import Submission

    return ServerParts(
        **{part.name: getattr(parts, part.name) for part in fields(parts)},
        submission=lambda: Submission.of(parts),
        sandbox=SandboxClients(lambda: parts.ledger, parts.providers.channel_to),
        entrance=lambda build: Entrance(
            parts.ledger,
            build,
            channel=parts.providers.channel_to,
            box=parts.providers.box_of,
            reaches=parts.providers.reaches,
        ),
        wake=lambda: wakeup.poke(parts.paths.wake),
    )


def _without_tokens(address: str) -> Principal:
    """Return as whom all callers are taken. Raises ConfigError where others could call."""
    from vmrunner.lib import process
    from vmrunner.model import Principal, TokenScope

    listener = _http("--insecure-no-auth")
    if not address or not listener.is_loopback(listener.parse(address)[0]):
        raise ConfigError(
            f"--insecure-no-auth: {address or 'no address'} is not this host alone",
            hint="--listen 127.0.0.1:8470",
        )
    return Principal(actor=process.user(), scopes=frozenset(TokenScope))
