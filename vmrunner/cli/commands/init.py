"""`vmrunner init`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.errors import ConfigError, Conflict


def init(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Of the project; default: here.")
    ] = Path(),
    config: Annotated[
        bool, typer.Option("--config", help="Also a commented vmrunner.toml.")
    ] = False,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema/--no-schema", help="Also vmrunner.schema.json, by which editors complete."
        ),
    ] = True,
) -> int:
    """Write a commented vmrunner.yml for this directory. Overwrites nothing. Prints the names of
    the files."""
    from vmrunner.config import jobfile
    from vmrunner.services import scaffold

    if not directory.is_dir():
        raise ConfigError(f"DIR: {str(directory)!r} is no directory", hint="make it first")
    suggested = scaffold.suggestion(directory)
    texts = {scaffold.JOB_FILE: scaffold.job_file(suggested, schema=schema)}
    if schema and not (directory / scaffold.JOB_FILE).exists():
        texts[scaffold.SCHEMA_FILE] = json.dumps(jobfile.schema(), indent=2) + "\n"
    if config:
        texts[scaffold.CONFIG_FILE] = scaffold.CONFIG_TEXT
    made = [name for name, text in texts.items() if _write(directory / name, text)]
    if not made:
        raise Conflict(f"{directory}: nothing was written", hint="move what is there away first")
    if scaffold.JOB_FILE in made:
        output.say(
            f"made for {suggested.found or 'any project'}: vmrunner run -f vmrunner.yml test"
        )
    return exit_codes.OK


def _write(path: Path, text: str) -> bool:
    """Write a file that is not there. False: something is, and stays."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        output.say(f"{path} is there already, and stays as it is")
        return False
    output.print_out(str(path))
    return True
