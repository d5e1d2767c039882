"""`vmrunner reap`, `audit`, `doctor`, `gc`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import shell_of
from vmrunner.cli.output import Column, Format, ListView

if TYPE_CHECKING:
    from vmrunner.core.audit_rules import Survivor
    from vmrunner.reaper.report import ReportLine
    from vmrunner.reaper.retention import Removal

T = TypeVar("T")

Output = Annotated[Format, typer.Option("-o", "--output")]
Provider = Annotated[str | None, typer.Option(metavar="NAME", help="Only this one.")]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="Say nothing when all is well, as for cron.")
]


def reap(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what it would do; do nothing.")
    ] = False,
    orphans: Annotated[
        bool,
        typer.Option(
            "--orphans", help="Also the orphans that the cap holds back; look at them first."
        ),
    ] = False,
    provider: Provider = None,
    quiet: Quiet = False,
    form: Output = Format.TABLE,
) -> int:
    """End all VMs that must not live, once. Those are past their deadline, abandoned or without a
    row; what dead VMs left is deleted too."""
    service = shell_of(context).service
    report = service.reap(provider=provider, dry_run=dry_run, orphans=orphans)
    _tell(_line_view(), report.lines, form, "nothing has to die", quiet=quiet)
    for text in (*report.alarms, *report.unread):
        output.warn(text)
    return (
        exit_codes.PARTLY if report.unread or any(x.failed for x in report.lines) else exit_codes.OK
    )


def audit(
    context: typer.Context,
    provider: Provider = None,
    tag: Annotated[
        str | None,
        typer.Option(metavar="KEY=VALUE", help="Only machines with this tag, of any maker."),
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="… that are older than this.")
    ] = None,
    quiet: Quiet = False,
    form: Output = Format.TABLE,
) -> int:
    """Report VMs that should not be alive. Ends nothing. Exits 7 if there is any."""
    from vmrunner.lib import units

    units.together({"--tag": tag, "--older-than": older_than})
    found = shell_of(context).service.audit(
        provider=provider,
        tag=None if tag is None else units.pair(tag, "--tag"),
        older_than=None if older_than is None else units.duration(older_than, "--older-than"),
    )
    _tell(_survivor_view(), found, form, "no survivor", quiet=quiet)
    return exit_codes.PARTLY if found else exit_codes.OK


def _tell(view: ListView[T], found: Sequence[T], form: Format, well: str, *, quiet: bool) -> None:
    """Print what was found, or that nothing was, unless that is silenced."""
    if found or not quiet:
        output.show(view, found, form)
        if not found and form in (Format.TABLE, Format.WIDE):
            output.say(well)


def doctor(
    context: typer.Context,
    provider: Annotated[
        str | None, typer.Argument(metavar="PROVIDER", help="Only this one.")
    ] = None,
    form: Output = Format.TABLE,
) -> int:
    """Check that all is there and allowed, with fixes."""
    from vmrunner.cli.views.findings import show_findings
    from vmrunner.services import doctor

    app = shell_of(context).app
    found = doctor.doctor(
        app.ledgers,
        app.providers,
        app.limits(),
        app.paths,
        store=lambda: app.store,
        provider=provider,
    )
    return show_findings(found, form)


def gc(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what it would do; do nothing.")
    ] = False,
    orphans: Annotated[
        bool,
        typer.Option(
            "--orphans", help="Also objects of no row that the cap holds back; look at them first."
        ),
    ] = False,
    trust_clock: Annotated[
        bool,
        typer.Option("--trust-clock", help="The clock is right, however long it was not checked."),
    ] = False,
    form: Output = Format.TABLE,
) -> int:
    """Remove old logs, artifacts and rows, as `serve` does nightly. Objects in the store that
    nothing needs go too, and local images that were replaced."""
    from vmrunner.services import gc

    app = shell_of(context).app
    removed = gc.gc(
        app.ledger, app.settings, app.paths, lambda: app.store,
        dry_run=dry_run, orphans=orphans, trust_clock=trust_clock,
    )  # fmt: skip
    output.show(_removal_view(), removed, form)
    if dry_run:
        output.say("nothing was removed: that was a dry run")
    return exit_codes.OK


def _line_view() -> ListView[ReportLine]:
    from vmrunner.lib import units
    from vmrunner.services.documents import verdict_document

    return ListView(
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
            Column("cost", lambda x: "unknown" if x.cost is None else f"${x.cost:.4f}"),
            Column("outcome", lambda x: x.outcome or "nothing done"),
        ),
        document=verdict_document,
    )


def _removal_view() -> ListView[Removal]:
    from vmrunner.lib import units
    from vmrunner.services.documents import removal_document

    return ListView(
        kind="removal",
        columns=(
            Column("what", lambda x: x.what),
            Column("count", lambda x: str(x.count)),
            Column("size", lambda x: units.amount(x.size)),
            Column("failed", lambda x: str(x.failed or ""), colour=lambda _: "red"),
        ),
        document=removal_document,
    )


def _survivor_view() -> ListView[Survivor]:
    from vmrunner.lib import units
    from vmrunner.services.documents import survivor_document

    return ListView(
        kind="survivor",
        columns=(
            Column("fault", lambda x: x.fault.value, colour=lambda _: "red"),
            Column("instance", lambda x: x.instance or ""),
            Column("ref", lambda x: x.ref.id if x.ref else ""),
            Column("late", lambda x: "" if x.late is None else units.span(x.late)),
            Column("message", lambda x: x.message),
        ),
        document=survivor_document,
    )
