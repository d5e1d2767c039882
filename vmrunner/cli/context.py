"""The context of every command: the parts, opened when they are first used."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar, cast

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.output import Format
from vmrunner.errors import ConfigError, VmrunnerError

if TYPE_CHECKING:
    from vmrunner.config.sources import LoadedSettings
    from vmrunner.ledger import Ledger
    from vmrunner.runtime.app import App
    from vmrunner.services.client import HttpClient
    from vmrunner.services.protocols import Service

_SERVER = "VMRUNNER_SERVER"
_DoneT = TypeVar("_DoneT")
#: Joins the parts of a configuration; tests give one of their own.
Joiner = Callable[["LoadedSettings"], "App"]


class CliContext:
    """One run of the command line."""

    def __init__(self, join: Joiner | None = None) -> None:
        self._join = join

    @cached_property
    def loaded(self) -> LoadedSettings:
        """The configuration, with origins."""
        from vmrunner.config import sources

        # What is known lies in the cache of a machine with a ledger: a mere client leaves nothing.
        return sources.load(lazily=_SERVER not in os.environ)

    @cached_property
    def app(self) -> App:
        from vmrunner.runtime.app import App

        return self._join(self.loaded) if self._join else App(self.loaded.settings)

    @cached_property
    def service(self) -> Service:
        """The server that the environment names, else this machine's own ledger."""
        if os.environ.get(_SERVER) is not None:
            from vmrunner.api import remote_service

            if (server := remote_service.from_environment(os.environ)) is not None:
                return server
        from vmrunner.api.local_service import LocalService

        return LocalService(self.app.service_parts())

    @property
    def ledger(self) -> Ledger:
        """This machine's own ledger. Raises ConfigError where a server is named."""
        return self.here.ledger

    @property
    def here(self) -> App:
        """The parts of this machine. Raises ConfigError where a server is named: the command is
        for the machine where the ledger is."""
        if os.environ.get(_SERVER) is not None:
            raise ConfigError(
                "this command works where the ledger is, not over a server",
                hint=f"run it there, or unset {_SERVER}",
            )
        return self.app

    def close(self) -> None:
        """Let go of what was opened."""
        if "service" in self.__dict__:
            self.service.close()
        elif "app" in self.__dict__:
            self.app.close()


def over_server() -> bool:
    """True if the environment names a server."""
    return os.environ.get(_SERVER) is not None


def server_of(context: typer.Context) -> HttpClient:
    """The client of the server that the environment names."""
    from vmrunner.api.remote_service import RemoteService

    service = shell_of(context).service
    assert isinstance(service, RemoteService)
    return service.client


def refused_over_server(command: str, why: str) -> ConfigError:
    """The error of a command that works where the ledger is alone."""
    return ConfigError(f"{command}: {why}", hint=f"run it where the ledger is, or unset {_SERVER}")


def shell_of(context: typer.Context) -> CliContext:
    """The shell of this run."""
    return cast("CliContext", context.obj)


def do_each(names: Sequence[str], act: Callable[[str], _DoneT]) -> tuple[list[_DoneT], int]:
    """Results of `act` for the names that it was done for, and the exit code. A trouble is told,
    and hinders no other."""
    done: list[_DoneT] = []
    troubles: list[VmrunnerError] = []
    for name in names:
        try:
            done.append(act(name))
        except VmrunnerError as error:
            troubles.append(error)
            output.say(f"error: {error}")
    if troubles:
        return done, exit_codes.PARTLY if done else exit_codes.of_error(troubles[0])
    return done, exit_codes.OK


def stdout_is_data(form: Format) -> bool:
    """True if stdout is a document, so that the build's output must go elsewhere."""
    return form in (Format.JSON, Format.JSONL)


def debugging() -> bool:
    """True if `VMRUNNER_DEBUG` asks for tracebacks."""
    return os.environ.get("VMRUNNER_DEBUG", "").lower() not in ("", "0", "false", "no", "off")


def unicode_out() -> bool:
    """True if stdout can show more than ASCII."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


__all__ = [
    "CliContext",
    "Joiner",
    "debugging",
    "output",
    "shell_of",
    "stdout_is_data",
    "unicode_out",
]
