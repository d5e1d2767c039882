"""`vmrunner github serve`."""

from __future__ import annotations

import logging
import signal
from typing import Annotated

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.commands.serve import LogFormat, log_to_stderr
from vmrunner.cli.context import shell_of
from vmrunner.errors import ConfigError

app = typer.Typer(help="Run jobs of GitHub Actions, a VM each.", no_args_is_help=True)

log = logging.getLogger("vmrunner.github")


@app.command()
def serve(
    context: typer.Context,
    log_format: Annotated[
        LogFormat, typer.Option(help="The format of its own log, on stderr.")
    ] = LogFormat.TEXT,
) -> int:
    """Listen for jobs, and start a runner in a VM of its own for each, until it is stopped. SIGTERM
    leaves those that run to the ledger."""
    from vmrunner.config import forges

    try:
        from vmrunner.integrations.github.serve import GithubServer
    except ImportError as error:
        raise ConfigError(
            f"github: {error.name} is not installed", hint="pip install 'vmrunner[github]'"
        ) from None

    shell = shell_of(context)
    output.hand_over()
    log_to_stderr(log_format)
    server = GithubServer(shell.service, forges.github_of(shell.loaded.settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    server.run()
    log.info("stopped; runners that run go on in their VMs")
    return exit_codes.OK
