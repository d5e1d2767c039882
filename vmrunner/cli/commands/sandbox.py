"""`vmrunner sandbox create|run|exec|shell|cp|ls|rm`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from vmrunner.cli import build_options, exit_codes, output
from vmrunner.cli.completion import build_ids
from vmrunner.cli.context import over_server, server_of, shell_of
from vmrunner.cli.output import Format
from vmrunner.cli.trailing_command import WithCommand
from vmrunner.errors import ConfigError, NotFound, VmrunnerError

if TYPE_CHECKING:
    from vmrunner.api.build import Build
    from vmrunner.api.runner import Runner
    from vmrunner.api.sandbox import Sandbox

app = typer.Typer(help="Start VMs and run commands in them, one by one.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", autocompletion=build_ids)]
Output = Annotated[Format, typer.Option("-o", "--output")]
Pairs = list[str] | None

_PIECE: Final = 64 << 10


@app.command()
def create(
    context: typer.Context,
    container: build_options.Container = None,
    container_runtime: build_options.Runtime = None,
    registry_secret: build_options.RegistrySecret = None,
    ttl: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long it lives once it is ready.")
    ] = None,
    max_ttl: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Longest life that it may be extended to."),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(metavar="POLICY", help="open, none, or allow=HOST[:PORT],…; default: none."),
    ] = None,
    provider: build_options.Provider = None,
    image: build_options.Image = None,
    source: build_options.Source = None,
    env: build_options.Env = None,
    secret: build_options.Secret = None,
    label: build_options.Label = None,
    name: build_options.Name = None,
    cpus: build_options.Cpus = None,
    memory: build_options.Memory = None,
    disk: build_options.Disk = None,
    docker: build_options.Docker = None,
    privileged: build_options.Privileged = None,
    spot: build_options.Spot = None,
    priority: build_options.Priority = None,
    queue_timeout: build_options.QueueTimeout = None,
    keep_logs: build_options.KeepLogs = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Submit once: the same key is the same sandbox."),
    ] = None,
    wait_timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="Give up if it is not ready by then.")
    ] = None,
    form: Output = Format.TABLE,
) -> int:
    """Start a sandbox and print its id once it is ready. It outlives this process."""
    values = locals()  # each option of `Sandbox.create` has its parameter: a test holds it
    from vmrunner.api.keywords import SandboxOptions
    from vmrunner.api.sandbox import Sandbox
    from vmrunner.cli.signals import interrupted_by_signals
    from vmrunner.lib import units

    values |= {
        "env": dict(units.pair(text, "env") for text in env or ()),
        "labels": dict(units.label(text) for text in label or ()),
        "secrets": secret,
    }
    options: SandboxOptions = {  # type: ignore[assignment]  # each is one of its keys
        name: values[name] for name in SandboxOptions.__annotations__
    }
    with interrupted_by_signals():  # no other process knows of it yet
        sandbox = Sandbox.create(wait_timeout=wait_timeout, runner=_runner(context), **options)
    if form is Format.TABLE:
        output.print_out(sandbox.id)
    else:
        _show([sandbox.info()], form)
    return exit_codes.OK


@app.command(cls=WithCommand)
def run(
    context: typer.Context,
    sandbox: Id,
    timeout: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="End it then, with all that it started."),
    ] = None,
    env: Annotated[
        Pairs, typer.Option("-e", "--env", metavar="NAME=VALUE", help="Variable of the command.")
    ] = None,
    cwd: Annotated[str, typer.Option(metavar="DIR", help="Where it runs.")] = "/work",
    user: Annotated[
        str | None, typer.Option(metavar="USER", help="The user that it runs as; default: root.")
    ] = None,
    stdin: Annotated[bool, typer.Option("-i", "--stdin", help="Send it this stdin.")] = False,
) -> int:
    """Run a command in a sandbox. The exit code is the command's own; 124 is its timeout, 130 a
    Ctrl-C, which the command gets too.

    vmrunner sandbox run ID -- pip --version"""
    from vmrunner.api.sandbox import command_order
    from vmrunner.cli.command_signals import passed_on
    from vmrunner.cli.log_sink import LogSink
    from vmrunner.lib import units
    from vmrunner.model import StreamName

    command: list[str] = context.meta.get("command") or []
    if not command:
        raise ConfigError("command: missing", hint="put it after --")
    order = command_order(
        command,
        timeout=timeout,
        env=dict(units.pair(text, "env") for text in env or ()),
        cwd=cwd,
        user=user,
        stdin=stdin,
    )
    with ExitStack() as stack:
        found = stack.enter_context(_connected(context, sandbox))
        sinks = {
            name: stack.enter_context(LogSink.to(stream, timestamps=False))
            for name, stream in zip(StreamName, (sys.stdout, sys.stderr), strict=True)
        }
        signals = stack.enter_context(passed_on(found, order.id))
        if stdin:
            found.start(order)
            threading.Thread(target=_send, args=(found, order.id), daemon=True).start()
        end = found.follow(order, lambda name, data: sinks[name].write_bytes(data))
    if signals.first is not None:
        return signals.code
    return exit_codes.TIMEOUT if end.timed_out else end.exit_code


@app.command(cls=WithCommand)
def shell(context: typer.Context, sandbox: Id) -> int:
    """Open a shell in a sandbox, or run CMD there. It is at a terminal if this is one."""
    from vmrunner.cli.remote_command import at_terminal

    command: list[str] = context.meta.get("command") or []
    return _enter(context, sandbox, command, terminal=at_terminal())


@app.command("exec", cls=WithCommand)
def run_attached(
    context: typer.Context,
    sandbox: Id,
    interactive: Annotated[bool, typer.Option("-i", "--stdin", help="Send it this stdin.")] = False,
    tty: Annotated[bool, typer.Option("-t", "--tty", help="Give it a terminal.")] = False,
    env: Annotated[
        Pairs, typer.Option("-e", "--env", metavar="NAME=VALUE", help="Variable of the command.")
    ] = None,
    cwd: Annotated[str, typer.Option(metavar="DIR", help="Where it runs.")] = "/work",
) -> int:
    """Run a command in a sandbox that ends with this connection. It can have a terminal; its
    output comes byte by byte, and is in no log. The exit code is its own.

    vmrunner sandbox exec -it ID -- python3"""
    from vmrunner.api.sandbox import command_order
    from vmrunner.cli.remote_command import at_terminal
    from vmrunner.lib import units

    command: list[str] = context.meta.get("command") or []
    if not command:
        raise ConfigError("command: missing", hint="put it after --")
    if tty and not at_terminal():
        raise ConfigError("tty: stdin or stdout is no terminal", hint="leave -t out")
    variables = dict(units.pair(text, "env") for text in env or ())
    command_order(command, env=variables, cwd=cwd)  # checked
    return _enter(
        context, sandbox, command, terminal=tty, stdin=interactive, env=variables, cwd=cwd
    )


def _enter(
    context: typer.Context, sandbox: str, command: list[str], *, terminal: bool, **options: Any
) -> int:
    """Run a command in a sandbox, here or by the server."""
    from vmrunner.cli import remote_command
    from vmrunner.cli.commands.ssh import enter
    from vmrunner.services.client.http_client import segment

    if not over_server():
        return enter(context, sandbox, command, into=True, terminal=terminal, **options)
    path = f"/sandboxes/{segment(sandbox)}/terminal"
    client = server_of(context)
    return remote_command.run(client, path, command, terminal=terminal, **options)


@app.command()
def cp(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="PATH, or ID:PATH.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="ID:PATH, or PATH.")],
    most: Annotated[
        str, typer.Option(metavar="SIZE", help="Refuse more than this out of a sandbox.")
    ] = "2GiB",
) -> int:
    """Copy files into a sandbox, or out of it. Of a directory, its content is copied."""
    remote, back = _parted(target), _parted(source)
    if bool(remote[0]) == bool(back[0]):
        raise ConfigError(
            f"target: neither or both of {source!r} and {target!r} are in a sandbox",
            hint="vmrunner sandbox cp DIR ID:/work, or ID:/work/out DIR; ./a:b is a file here",
        )
    if remote[0]:
        with _connected(context, remote[0]) as sandbox:
            sandbox.upload(source, remote[1])
        return exit_codes.OK
    with _connected(context, back[0]) as sandbox:
        output.print_path(str(sandbox.download(back[1], target, most=most)))
    return exit_codes.OK


def _parted(place: str) -> tuple[str, str]:
    """Return the sandbox that it names, if any, and the path."""
    name, colon, path = place.partition(":")
    return (name, path or "/work") if colon and "/" not in name else ("", place)


@app.command()
def ls(
    context: typer.Context,
    label: Annotated[
        Pairs, typer.Option("-l", "--label", metavar="NAME=VALUE", help="Only with it.")
    ] = None,
    form: Output = Format.TABLE,
) -> int:
    """List running sandboxes, newest first."""
    from vmrunner.api.sandbox import Sandbox
    from vmrunner.lib import units

    labels = dict(units.label(text) for text in label or ())
    _show(Sandbox.list(labels=labels, runner=_runner(context)), form)
    return exit_codes.OK


@app.command()
def rm(
    context: typer.Context,
    sandboxes: Annotated[list[str], typer.Argument(metavar="ID", autocompletion=build_ids)],
) -> int:
    """End sandboxes, with their VMs."""
    runner = _runner(context)
    with _known():
        rows = [runner.get(word) for word in sandboxes]
    for row in rows:
        if row.spec.sandbox_ttl is None:
            raise ConfigError(f"{row.id} is a build, no sandbox", hint="vmrunner cancel ends it")
    for row in rows:
        runner.end_sandbox(row.id)
        output.print_out(row.id)
    return exit_codes.OK


def _runner(context: typer.Context) -> Runner:
    """A runner whose engine, where it needs one, is in the background."""
    from vmrunner.api.runner import Runner

    if not over_server():
        return Runner(app=shell_of(context).app, engine=None)
    runner = Runner(engine=None)
    context.call_on_close(runner.close)
    return runner


@contextmanager
def _known() -> Iterator[None]:
    """Tell who names a sandbox that is not there where they are, in words of the command line."""
    try:
        yield
    except NotFound as error:
        raise NotFound(str(error.args[0]), hint="vmrunner sandbox ls shows them") from None


@contextmanager
def _connected(context: typer.Context, word: str) -> Iterator[Sandbox]:
    """A sandbox that lives on after it was used."""
    from vmrunner.api.sandbox import Sandbox

    runner = _runner(context)
    try:
        with _known():
            sandbox = Sandbox.connect(word, runner=runner)
    except NotFound:
        runner.close()
        raise
    try:
        yield sandbox
    finally:
        sandbox.close()


def _send(sandbox: Sandbox, command: str) -> None:
    """Send what comes on stdin, until its end or the command's."""
    sent = 0
    with suppress(VmrunnerError, OSError):  # who follows hears why
        while data := os.read(sys.stdin.fileno(), _PIECE):
            sandbox.send_input(command, sent, data)
            sent += len(data)
        sandbox.send_input(command, sent, b"", last=True)


def _show(builds: Sequence[Build], form: Format) -> None:
    from vmrunner.cli.views.builds import sandbox_view

    rows = [build.row for build in builds]
    output.show(sandbox_view(), rows, form)
