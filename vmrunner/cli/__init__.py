"""The command line. One file a group of commands; what they need is imported when they run."""

from __future__ import annotations

import gc
import importlib
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from vmrunner import __version__
from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import CliContext, Joiner, debugging, over_server, refused_over_server
from vmrunner.cli.plain_options import make_plain
from vmrunner.cli.summaries import SUMMARIES
from vmrunner.cli.trailing_command import WithCommand
from vmrunner.errors import ConfigError, VmrunnerError
from vmrunner.lib import units

if TYPE_CHECKING:
    from vmrunner.services.document_types import VersionDocument


class _ByTask(TyperGroup):
    """A group whose help lists its commands under the tasks that they are for."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        width = formatter.width - 6 - max(map(len, _COMMANDS))
        for task, names in _TASKS.items():
            helps = [TyperCommand(name, help=SUMMARIES[name]) for name in names]
            with formatter.section(task):
                formatter.write_dl(
                    [(command.name or "", command.get_short_help_str(width)) for command in helps]
                )


#: So many new objects make it worth a look for garbage. What is imported is none.
_GARBAGE: Final = 50_000
#: Where each command is, by the task under which the help lists it, in that order.
_TASKS: Final[Mapping[str, Mapping[str, str]]] = {
    "Builds": {
        "run": ".commands.run:run",
        "ps": ".commands.builds:ps",
        "show": ".commands.builds:show",
        "events": ".commands.builds:events",
        "logs": ".commands.builds:logs",
        "watch": ".commands.builds:watch",
        "cancel": ".commands.builds:cancel",
        "extend": ".commands.builds:extend",
        "rm": ".commands.builds:rm",
        "ssh": ".commands.ssh:ssh",
        "artifacts": ".commands.ssh:artifacts",
        "cache": ".commands.caches:app",
    },
    "Sandboxes": {
        "sandbox": ".commands.sandbox:app",
        "mcp": ".commands.mcp:mcp",
    },
    "VMs": {
        "vm": ".commands.vms:app",
        "pool": ".commands.pools:app",
        "image": ".commands.images:app",
        "costs": ".commands.costs:costs",
        "drain": ".commands.vms:drain",
    },
    "Nothing left behind": {
        "reap": ".commands.maintenance:reap",
        "audit": ".commands.maintenance:audit",
        "guard": ".commands.guard:app",
        "gc": ".commands.maintenance:gc",
    },
    "Service": {
        "serve": ".commands.serve:serve",
        "token": ".commands.tokens:app",
        "notify": ".commands.notify:app",
        "db": ".commands.config:db",
        "backup": ".commands.backup:backup",
        "restore": ".commands.backup:restore",
    },
    "Forges": {
        "github": ".commands.github:app",
        "gitlab": ".commands.gitlab:app",
        "garm": ".commands.garm:garm",
    },
    "Set-up and help": {
        "init": ".commands.init:init",
        "doctor": ".commands.maintenance:doctor",
        "support": ".commands.support:app",
        "config": ".commands.config:config",
        "version": ":version",
        "help": ":help_",
    },
}
_COMMANDS: Final = {name: place for task in _TASKS.values() for name, place in task.items()}
#: Commands that say nothing over a server, and why.
_HERE: Final[Mapping[str, str]] = {
    "guard": "it works with your own cloud credentials",
    "image": "images are made and kept where VMs are started",
    "doctor": "it checks the machine, the credentials and the files of an engine",
    "gc": "it removes what lies beside the ledger; `serve` does the same at night",
    "backup": "it reads the ledger and the store directly",
    "restore": "it writes the ledger and the store directly",
    "serve": "it serves this machine's own ledger",
    "token": "tokens are made only where the ledger is; the page shows and revokes them",
    "notify": "it reads the ledger's outbox, and sends from the machine that serves",
    "db": "it works on the ledger's database itself",
    "support": "it collects files of a node's machine",
}
#: How Typer makes those that are not as the others.
_MANNERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "run": {"cls": WithCommand},
    "ssh": {"cls": WithCommand},
    # What looks like an option is a duration that cannot be, and is told as one.
    "extend": {"context_settings": {"ignore_unknown_options": True}},
}


def version(
    form: Annotated[output.Format, typer.Option("-o", "--output")] = output.Format.TABLE,
) -> int:
    """Print the version. With -o json also that of Python and of the ledger's tables."""
    if form in (output.Format.JSON, output.Format.JSONL):
        from vmrunner.services import versions

        view: output.ListView[VersionDocument] = output.ListView(
            kind="version", columns=(), document=lambda found: found
        )
        output.show(view, [versions.ours(__version__)], form)
        return exit_codes.OK
    output.print_out(f"vmrunner {__version__}")
    return exit_codes.OK


def _version(wanted: bool) -> None:
    if wanted:
        output.print_out(f"vmrunner {__version__}")
        raise typer.Exit


def help_(
    command: Annotated[list[str] | None, typer.Argument(metavar="COMMAND")] = None,
) -> int:
    """Print the help of a command, as COMMAND --help does."""
    words = [*(command or ()), "--help"]
    _command(words)(args=words, prog_name="vmrunner", standalone_mode=False)
    return exit_codes.OK


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "-V", "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


def _needed(words: Sequence[str]) -> Collection[str]:
    """The commands that a command line needs: the one that it names; for the help of all, none; for
    a mistake or completion, all."""
    first = next((word for word in words if not word.startswith("-")), None)
    if first is None and words and {*words} <= {"-h", "--help", "-V", "--version"}:
        return ()
    return [first] if first in _COMMANDS else _COMMANDS


def app(words: Sequence[str] = ()) -> typer.Typer:
    """The command line, with the commands that `words` need."""
    made = typer.Typer(
        name="vmrunner",
        cls=_ByTask,
        help="One fresh virtual machine per build, nothing left behind.\n\n"
        "Start with: vmrunner doctor, then vmrunner run -- uname -a",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_root)
    for name in _needed(words):
        module, _, what = _COMMANDS[name].partition(":")
        command = getattr(importlib.import_module(f"{__name__}{module}"), what)
        if isinstance(command, typer.Typer):
            made.add_typer(command, name=name)
        else:
            made.command(name, **_MANNERS.get(name, {}))(command)
    return made


def _refuse_server(words: Sequence[str]) -> None:
    """Raises ConfigError for a command that does nothing over the server that is named."""
    first = next((word for word in words if not word.startswith("-")), "")
    asks = {"-h", "--help"} & set(words)
    if first in _HERE and over_server() and not asks:
        raise refused_over_server(first, _HERE[first])


def _command(words: Sequence[str]) -> Any:
    return make_plain(typer.main.get_command(app(words)))


def garm() -> int:
    """The program that GARM calls, which it gives no words."""
    return main(["garm"])


def main(argv: Sequence[str] | None = None, *, join: Joiner | None = None) -> int:
    """Run one command line; the exit code. `join` makes the parts of a configuration."""
    if argv is None:
        # To look for plugins, pydantic reads the metadata of all that is installed.
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
        gc.set_threshold(_GARBAGE)
    output.fill()
    words = list(sys.argv[1:] if argv is None else argv)
    shell = CliContext(join)
    remote = exit_codes.remote(words)
    output.listen()
    try:
        return _run(words, shell, remote)
    except BrokenPipeError:  # while it was told what went wrong
        return _unread()
    except exit_codes.ExitNow as leave:
        _flush()
        os._exit(leave.code)
    finally:
        shell.close()
        output.hand_over()
        if argv is None:  # the process ends: to look for garbage in all that it loaded takes long
            gc.freeze()


def _run(words: list[str], shell: CliContext, remote: bool) -> int:
    try:
        _refuse_empty(words)
        _refuse_server(words)
        code = _command(words)(args=words, prog_name="vmrunner", standalone_mode=False, obj=shell)
        _flush()
        return code if isinstance(code, int) else exit_codes.OK
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message(), file=sys.stderr)  # noqa: T201 - many lines, none an error
        else:
            text, fix = _in_words(error)
            output.say(f"error: {text} ({fix}{fix and '; '}see: {_help(error)})")
        return exit_codes.OURS if remote else exit_codes.USAGE
    except BrokenPipeError:
        return _unread()
    except KeyboardInterrupt:
        output.say("interrupted")
        return exit_codes.INTERRUPTED
    except VmrunnerError as error:
        return _refused(error, remote)
    except UnicodeEncodeError as error:
        output.say(f"error: {error.object[:60]!r} is not UTF-8 (write it so)")
        return exit_codes.OURS if remote else exit_codes.USAGE
    except exit_codes.ExitNow:
        raise
    except SystemExit as error:
        # That is how Typer says it; for the shell's completion it is what it seems.
        if isinstance(error.__context__, BrokenPipeError):
            return _unread()
        raise
    except Exception as error:  # noqa: BLE001 - never a raw traceback
        return _unexpected(error, remote)


def _refused(error: VmrunnerError, remote: bool) -> int:
    """One line each, where a file has several faults."""
    _trace()
    several = isinstance(error, ConfigError) and error.more
    for text in str(error).splitlines() if several else [str(error)]:
        output.say(f"error: {text}")
    return exit_codes.OURS if remote else exit_codes.of_error(error)


def _unexpected(error: Exception, remote: bool) -> int:
    _trace()
    if isinstance(error, OSError) and _while_printing(error):
        _silence()
        output.say(f"error: what was to be printed cannot be written: {error.strerror}")
    else:
        hint = "" if debugging() else " (VMRUNNER_DEBUG=1 shows where)"
        output.say(f"error: {type(error).__name__}: {error}{hint}")
    return exit_codes.OURS if remote else exit_codes.FAILED


def _in_words(error: typer.TyperException) -> tuple[str, str]:
    """The fault in the words of a command, and its fix. Typer hands on what pydantic says of a
    value."""
    fault, option = error.__cause__, getattr(error, "param", None)
    if fault is None or option is None:
        return error.format_message(), ""
    from pydantic import ValidationError

    if not isinstance(fault, ValidationError):
        return error.format_message(), ""
    from vmrunner.config.fault_words import in_words, written

    first = fault.errors(include_url=False)[0]
    named = option.param_type_name == "option"
    name = option.opts[0] if named else option.metavar or option.name.upper()
    value = written(first["input"])
    text, fix = in_words(first)
    if text.startswith(f"{value} is not one of "):  # of an option's own words
        words = re.findall(r"'([^']*)'", text.removeprefix(value))
        return f"{name}: no {value}", units.did_you_mean(str(first["input"]), words)
    return f"{name}: {value}: {text}", fix


def _help(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path} --help" if context is not None else "vmrunner --help"


def _refuse_empty(words: list[str]) -> None:
    """An unset variable (`--network "$NET"`) is never a default."""
    own = words[: words.index("--")] if "--" in words else words
    for at, word in enumerate(own):
        option, equals, value = word.partition("=")
        if not word or (option.startswith("--") and equals and not value):
            where = option or (own[at - 1] if at else "the command")
            raise ConfigError(f"{where}: empty", hint="give it a value, or leave it out")


def _trace() -> None:
    if debugging():
        output.print_trace()


def _while_printing(error: OSError) -> bool:
    """True if the error was raised where nothing but stdout and stderr is written to."""
    trace = error.__traceback__
    module = ""
    while trace is not None:
        module, trace = trace.tb_frame.f_globals.get("__name__", ""), trace.tb_next
    own = (__name__, output.__name__, f"{__name__}.log_sink")
    return module in own or module.startswith("typer.")


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence()
    try:
        sys.stderr.flush()
    except OSError:  # talk, which changes no exit code
        _silence()


def _unread() -> int:
    """Return the code for a reader of our output that has gone: no error of anybody's."""
    _silence()
    return exit_codes.UNREAD


def _silence() -> None:
    """Write nothing more to a closed pipe, not even at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
