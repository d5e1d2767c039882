"""`vmrunner garm`: GARM's external provider. What it is to do stands in its environment."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import shell_of
from vmrunner.errors import ConfigError, Conflict, NotFound, VmrunnerError

if TYPE_CHECKING:
    from vmrunner.cli.context import CliContext

#: Exit codes that GARM knows; any other is a failure.
NOT_FOUND: Final = 30
DUPLICATE: Final = 31


def garm(context: typer.Context) -> int:
    """Run runners of GARM, a VM each (its external provider).

    GARM_COMMAND is one of CreateInstance, DeleteInstance, GetInstance, ListInstances,
    RemoveAllInstances, Start, Stop and GetVersion; of interface v0.1.1 also
    GetSupportedInterfaceVersions, ValidatePoolInfo, GetConfigJSONSchema and
    GetExtraSpecsJSONSchema."""
    try:
        answer = _answer(shell_of(context), os.environ)
    except VmrunnerError as error:
        output.say(f"error: {error}")
        if isinstance(error, NotFound):
            return NOT_FOUND
        return DUPLICATE if isinstance(error, Conflict) else exit_codes.FAILED
    if answer is not None:
        output.print_out(answer)
    return exit_codes.OK


def _answer(shell: CliContext, environ: Mapping[str, str]) -> str | None:
    """The text for stdout."""
    from vmrunner.integrations.garm import documents

    command = _needed(environ, "GARM_COMMAND")
    if (text := documents.answer(command)) is not None:
        return text
    os.environ["VMRUNNER_CONFIG"] = _needed(environ, "GARM_PROVIDER_CONFIG_FILE")
    answer = _carried_out(shell, command, environ)
    return None if answer is None else json.dumps(answer)


def _carried_out(shell: CliContext, command: str, environ: Mapping[str, str]) -> Any:
    from vmrunner.config import forges
    from vmrunner.integrations.garm import bootstrap
    from vmrunner.integrations.garm.provider import GarmProvider

    controller = _needed(environ, "GARM_CONTROLLER_ID")
    garm = GarmProvider(shell.service, forges.garm_of(shell.loaded.settings), controller)

    def instance() -> str:
        return _needed(environ, "GARM_INSTANCE_ID")

    def create() -> Any:
        wanted = bootstrap.read(sys.stdin.buffer.read())
        return garm.create(_needed(environ, "GARM_POOL_ID"), wanted)

    commands: Mapping[str, Callable[[], Any]] = {
        "CreateInstance": create,
        "DeleteInstance": lambda: garm.delete(instance()),
        "GetInstance": lambda: garm.get(instance()),
        "ListInstances": lambda: garm.instances(_needed(environ, "GARM_POOL_ID")),
        "RemoveAllInstances": garm.remove_all,
        "Start": lambda: garm.start(instance()),
        "StartInstance": lambda: garm.start(instance()),
        "Stop": lambda: garm.delete(instance()),
        "StopInstance": lambda: garm.delete(instance()),
        "ValidatePoolInfo": lambda: garm.validate(_extra(environ)),
    }
    if command not in commands:
        names = ", ".join(sorted(commands))
        raise ConfigError(f"GARM_COMMAND: {command!r} is not known", hint=names)
    return commands[command]()


def _extra(environ: Mapping[str, str]) -> dict[str, Any] | None:
    from vmrunner.integrations.garm import bootstrap

    return bootstrap.extra_specs(environ.get("GARM_POOL_EXTRASPECS", ""))


def _needed(environ: Mapping[str, str], name: str) -> str:
    if value := environ.get(name):
        return value
    raise ConfigError(f"{name}: not set", hint="GARM sets it; docs/garm.md has how it is called")
