"""The command line. One file a group of commands; what they need is imported when they run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from vmrunner import __version__
from vmrunner.cli import builds, exits, guard, images, inside, keep, output, run, settings, vms
from vmrunner.cli.shell import Joiner, Shell
from vmrunner.errors import VmrunnerError


class _WithCommand(TyperCommand):
    """What stands after `--` is the user's, word by word, and never an option of ours."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            cut = args.index("--")
            ctx.meta["command"] = args[cut + 1 :]
            args = args[:cut]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- CMD…]"]


app = typer.Typer(
    name="vmrunner",
    help="One fresh virtual machine per build, nothing left behind.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        output.print_out(f"vmrunner {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="And exit.")
    ] = False,
) -> None:
    pass


def _add(*commands: Callable[..., int], cls: type[TyperCommand] = TyperCommand) -> None:
    for command in commands:
        app.command(cls=cls)(command)


_add(run.run, cls=_WithCommand)
_add(builds.ps, builds.show, builds.events, builds.logs, builds.watch, builds.cancel, builds.extend)
_add(inside.ssh, cls=_WithCommand)
app.add_typer(inside.artifacts, name="artifacts")
app.add_typer(vms.app, name="vm")
_add(vms.drain, keep.reap, keep.audit)
app.add_typer(guard.app, name="guard")
app.add_typer(images.app, name="image")
_add(keep.doctor, keep.serve)
app.add_typer(settings.db, name="db")
app.add_typer(settings.config, name="config")


def main(argv: Sequence[str] | None = None, *, join: Joiner | None = None) -> int:
    """Run one command line; the exit code. `join` makes the parts of a configuration."""
    output.fill()
    words = list(sys.argv[1:] if argv is None else argv)
    shell = Shell(join)
    remote = exits.remote(words)
    output.listen()
    try:
        return _run(words, shell, remote)
    except BrokenPipeError:  # while it was told what went wrong
        return _unread()
    except exits.Leave as leave:
        _flush()
        os._exit(leave.code)
    finally:
        shell.close()
        output.hand_over()


def _run(words: list[str], shell: Shell, remote: bool) -> int:
    try:
        code = app(args=words, prog_name="vmrunner", standalone_mode=False, obj=shell)
        _flush()
        return code if isinstance(code, int) else exits.OK
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message(), file=sys.stderr)  # noqa: T201 - many lines, none an error
        else:
            output.say(f"error: {error.format_message()} (see: {_help(error)})")
        return exits.OURS if remote else exits.USAGE
    except BrokenPipeError:
        return _unread()
    except KeyboardInterrupt:
        output.say("interrupted")
        return exits.INTERRUPTED
    except VmrunnerError as error:
        _trace()
        output.say(f"error: {error}")
        return exits.OURS if remote else exits.of_error(error)
    except exits.Leave:
        raise
    except SystemExit as error:
        # That is how Typer says it; for the shell's completion it is what it seems.
        if isinstance(error.__context__, BrokenPipeError):
            return _unread()
        raise
    except Exception as error:  # noqa: BLE001 - never a raw traceback
        _trace()
        hint = "" if _debug() else " (VMRUNNER_DEBUG=1 shows where)"
        output.say(f"error: {type(error).__name__}: {error}{hint}")
        return exits.OURS if remote else exits.FAILED


def _help(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path} --help" if context is not None else "vmrunner --help"


def _debug() -> bool:
    return bool(os.environ.get("VMRUNNER_DEBUG"))


def _trace() -> None:
    if _debug():
        import traceback

        traceback.print_exc()


def _flush() -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        _silence()


def _unread() -> int:
    """Whoever read our output has gone: no error of anybody's."""
    _silence()
    return exits.UNREAD


def _silence() -> None:
    """Say nothing more where nobody hears it, not even at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
