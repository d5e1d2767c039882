"""`vmrunner support dump`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from vmrunner import __version__
from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import shell_of
from vmrunner.errors import ConfigError, Conflict, VmrunnerError
from vmrunner.lib import units

app = typer.Typer(help="Collect facts for a bug report.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def dump(
    context: typer.Context,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="Default: vmrunner-support-TIME.tar.gz, here."),
    ] = None,
    log: Annotated[
        list[Path] | None,
        typer.Option(
            "--log", metavar="FILE", help="Its end goes in too, such as what `serve` wrote."
        ),
    ] = None,
    look: Annotated[
        bool, typer.Option("--doctor/--no-doctor", help="What `doctor` finds; it asks the clouds.")
    ] = True,
) -> int:
    """Write one archive of facts about this installation, without secrets, for a bug report."""
    from vmrunner.services import support

    now = time.time()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    path = to or Path(f"vmrunner-support-{stamp}.tar.gz")
    for file in log or ():
        if not file.is_file():
            raise ConfigError(f"--log: no file {str(file)!r}", hint="correct it, or leave it out")
    if path.exists():
        raise Conflict(f"{path} is there already", hint="name another with --to")
    shell = shell_of(context)
    try:
        loaded = shell.loaded
    except ConfigError as error:
        output.warn(f"all else is left out: {error}")
        data = support.dump_of_refused(error, now, version=__version__)
    else:
        data = support.dump(
            shell.app.service_parts(),
            loaded,
            now,
            version=__version__,
            store=(lambda: shell.app.store) if look else None,
            logs=log or (),
        )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} is there already", hint="name another with --to") from None
    except OSError as error:
        raise _unwritten(path, error) from None
    try:
        with os.fdopen(descriptor, "wb") as archive:
            archive.write(data)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _unwritten(path, error) from None
    output.print_out(str(path))
    output.say(f"{units.amount(len(data))}, without secrets; look at it before you send it on")
    return exit_codes.OK


def _unwritten(path: Path, error: OSError) -> VmrunnerError:
    return VmrunnerError(
        f"the archive cannot be written to {path}: {error.strerror}",
        hint="see who owns its directory, and its room; or name another with --to",
    )
