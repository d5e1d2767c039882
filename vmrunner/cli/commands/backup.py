"""`vmrunner backup`, `restore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmrunner import __version__
from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import shell_of
from vmrunner.cli.output import Column, Format, ListView

if TYPE_CHECKING:
    from vmrunner.services.backup_manifest import BackupManifest
    from vmrunner.services.document_types import BackupDocument

Output = Annotated[Format, typer.Option("-o", "--output")]
_Row = tuple[Path, "BackupManifest"]


def backup(
    context: typer.Context,
    destination: Annotated[
        Path, typer.Argument(metavar="DEST", help="A directory that is not there yet.")
    ],
    form: Output = Format.TABLE,
) -> int:
    """Copy the ledger and its store, while they are in use. The secret key is not in the copy.
    Exits 7 if something of the store is missing from it."""
    from vmrunner.services import backup

    shell = shell_of(context)
    ledger = shell.ledger
    app = shell.app
    made = backup.backup(
        ledger, app.store, destination, uploader=app.uploader(), version=__version__
    )
    output.show(_view(), [(made.directory, made.manifest)], form)
    key = ledger.sealed.key_file or "VMRUNNER_SECRET_KEY"
    output.say(f"without its secret key it cannot be restored: keep {key} too, and elsewhere")
    for name in made.manifest.lost:
        output.warn(f"the store has lost {name}, or some of its bytes")
    if made.unbrought:
        output.warn(
            f"the artifacts of {made.unbrought} builds are on their host still, and not in it: "
            "`vmrunner serve` there uploads them"
        )
    return exit_codes.PARTLY if made.manifest.lost or made.unbrought else exit_codes.OK


def restore(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A backup, as `backup` made it.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Also over a ledger that has something in it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="See whether it can be done; change nothing.")
    ] = False,
    form: Output = Format.TABLE,
) -> int:
    """Restore a backup of ledger and store. Nothing is launched until `drain --off`."""
    from vmrunner.services import restore

    app = shell_of(context).here
    manifest = restore.restore(
        app.settings, app.paths, lambda: app.store, source, replace=replace, dry_run=dry_run
    )
    output.show(_view(), [(source.absolute(), manifest)], form)
    if dry_run:
        output.say("all of it is whole and fits here; nothing was changed: that was a dry run")
    else:
        output.say(
            "look at `vmrunner ps` and `vmrunner token ls`: what ended or was revoked since is not "
            "known here. Then `vmrunner drain --off`"
        )
    return exit_codes.OK


def _view() -> ListView[_Row]:
    from vmrunner.lib import units
    from vmrunner.services.documents import iso

    def document(row: _Row) -> BackupDocument:
        directory, found = row
        return {
            "path": str(directory),
            "taken_at": iso(found.taken_at),
            "installation": found.installation,
            "version": found.version,
            "database": found.database,
            "objects": found.objects,
            "bytes": found.size,
            "lost": found.lost,
        }

    return ListView(
        kind="backup",
        columns=(
            Column("path", lambda x: str(x[0])),
            Column("taken", lambda x: iso(x[1].taken_at) or ""),
            Column("objects", lambda x: str(x[1].objects)),
            Column("size", lambda x: units.amount(x[1].size)),
            Column("lost", lambda x: str(len(x[1].lost))),
        ),
        document=document,
    )
