"""`vmrunner reap`, `audit`, `doctor`, `serve`."""

from __future__ import annotations

import logging
import os
import threading
import time
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from vmrunner.cli import exits, output
from vmrunner.cli.output import Column, Format, View
from vmrunner.cli.shell import shell_of
from vmrunner.errors import LedgerError

if TYPE_CHECKING:
    from vmrunner.audit import Survivor
    from vmrunner.engine import Engine
    from vmrunner.report import Line
    from vmrunner.wiring import Wiring

Output = Annotated[Format, typer.Option("-o", "--output")]
Provider = Annotated[str | None, typer.Option(help="Only this one.")]


def reap(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say it, do nothing.")] = False,
    orphans: Annotated[
        bool,
        typer.Option(
            "--orphans", help="Also the orphans that the cap holds back; look at them first."
        ),
    ] = False,
    provider: Provider = None,
    form: Output = Format.TABLE,
) -> int:
    """Kill what must die: past its deadline, left over, abandoned, not ours to keep. Once."""
    report = _care().reap(
        shell_of(context).wiring, provider=provider, dry_run=dry_run, orphans=orphans
    )
    output.show(_line_view(), report.lines, form)
    if not report.lines and form in (Format.TABLE, Format.WIDE):
        output.say("nothing has to die")
    for text in (*report.alarms, *report.unread):
        output.warn(text)
    return exits.PARTLY if report.unread or any(x.failed for x in report.lines) else exits.OK


def audit(
    context: typer.Context,
    provider: Provider = None,
    tag: Annotated[
        str | None,
        typer.Option(metavar="KEY=VALUE", help="Only machines with this tag, whoever made them."),
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="… that are older than this.")
    ] = None,
    form: Output = Format.TABLE,
) -> int:
    """The cloud against the ledger. Kills nothing; exits 7 when anything is alive that should
    not be."""
    from vmrunner import units

    found = _care().audit(
        shell_of(context).wiring,
        provider=provider,
        tag=None if tag is None else units.pair(tag, "--tag"),
        older_than=None if older_than is None else units.duration(older_than, "--older-than"),
    )
    output.show(_survivor_view(), found, form)
    if not found and form in (Format.TABLE, Format.WIDE):
        output.say("no survivor")
    return exits.PARTLY if found else exits.OK


def doctor(
    context: typer.Context,
    provider: Annotated[str | None, typer.Argument(help="Only this one.")] = None,
    form: Output = Format.TABLE,
) -> int:
    """Is everything there, and allowed? Each finding with its fix."""
    from vmrunner.cli.findings import show_findings

    return show_findings(_care().doctor(shell_of(context).wiring, provider=provider), form)


def serve(
    context: typer.Context,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End when nothing is left to do.")
    ] = False,
) -> int:
    """Start and drive builds, and reap, until it is stopped. SIGTERM hands over what runs, SIGHUP
    reads the configuration again."""
    from vmrunner import configfile
    from vmrunner.daemon import Daemon, Renewal
    from vmrunner.serving import BACKGROUND, SERVE

    shell = shell_of(context)
    output.hand_over()
    verbose = bool(os.environ.get("VMRUNNER_DEBUG"))
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for chatty in ("apscheduler", "paramiko", "fabric", "invoke"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    wiring = shell.wiring
    engine = wiring.engine(BACKGROUND) if until_idle else _patiently(wiring, SERVE)

    def renew() -> Renewal:
        settings = configfile.load().settings
        providers = wiring.renew(settings, engine.desk.providers)
        return Renewal(
            providers=providers,
            limits=wiring.limits(),
            cron=settings.reaper.sweep,
            keep_logs=settings.reaper.keep_logs,
        )

    Daemon(
        engine,
        shell.ledger,
        cron=wiring.settings.reaper.sweep,
        until_idle=until_idle,
        keep_logs=wiring.settings.reaper.keep_logs,
        tidy=wiring.tidy,
        renew=renew,
    ).run()
    return exits.OK


def _patiently(wiring: Wiring, kind: str) -> Engine:
    """An engine, as soon as the ledger's database answers. What needs none is done meanwhile."""
    from vmrunner import daemon
    from vmrunner.telling import Telling

    tell = Telling(time.monotonic)
    while True:
        try:
            return wiring.engine(kind)
        except LedgerError:
            tell(_care().reap(wiring))
            threading.Event().wait(daemon.PASS)


def _care() -> ModuleType:
    from vmrunner import care

    return care


def _line_view() -> View[Line]:
    from vmrunner import units

    return View(
        kind="verdict",
        columns=(
            Column("what", lambda x: x.what),
            Column("kind", lambda x: x.kind),
            Column("id", lambda x: x.id),
            Column("reason", lambda x: x.reason.value),
            Column("age", lambda x: "" if x.age is None else units.span(x.age)),
            Column("late", lambda x: "" if x.late is None else units.span(x.late)),
            Column("provider", lambda x: x.provider),
            Column("instance", lambda x: x.instance or "", wide=True),
            Column("build", lambda x: x.build or "", wide=True),
            Column("cost", lambda x: f"${x.cost:.4f}" if x.cost else ""),
            Column("outcome", lambda x: x.outcome or "nothing done"),
        ),
        document=lambda x: {
            "provider": x.provider,
            "what": x.what,
            "kind": x.kind,
            "id": x.id,
            "reason": x.reason.value,
            "instance": x.instance,
            "build": x.build,
            "age": x.age,
            "late": x.late,
            "cost": round(x.cost, 6),
            "outcome": x.outcome or None,
        },
    )


def _survivor_view() -> View[Survivor]:
    from vmrunner import units

    return View(
        kind="survivor",
        columns=(
            Column("fault", lambda x: x.fault.value, colour=lambda _: "red"),
            Column("instance", lambda x: x.instance or ""),
            Column("ref", lambda x: x.ref.id if x.ref else ""),
            Column("late", lambda x: "" if x.late is None else units.span(x.late)),
            Column("message", lambda x: x.message),
        ),
        document=lambda x: {
            "fault": x.fault.value,
            "instance": x.instance,
            "ref": x.ref.id if x.ref else None,
            "kind": x.ref.kind.value if x.ref else None,
            "scope": str(x.ref.scope) if x.ref else None,
            "late": x.late,
            "message": x.message,
        },
    )
