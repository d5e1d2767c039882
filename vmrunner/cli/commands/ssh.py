"""`vmrunner ssh` and `vmrunner artifacts ls|get`."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from vmrunner.cli import artifact_destination, exit_codes, output, remote_command
from vmrunner.cli.commands.builds import Id, Output
from vmrunner.cli.context import over_server, server_of, shell_of
from vmrunner.cli.output import Column, Format, ListView
from vmrunner.errors import ConfigError, Conflict, VmrunnerError
from vmrunner.lib import terminal, unix_sockets

if TYPE_CHECKING:
    from vmrunner.core.boxes import Box
    from vmrunner.lib.channels import Channel
    from vmrunner.model import Access, Address
    from vmrunner.services.artifacts import Artifact
    from vmrunner.services.protocols import BuildArtifacts

artifacts = typer.Typer(help="List and copy the artifacts of builds.", no_args_is_help=True)

_USER: Final = "root"
_CONNECT: Final = 15.0  # seconds
_BROKEN: Final = 255  # ssh's own failures


def ssh(
    context: typer.Context,
    build: Id,
    into: Annotated[
        bool, typer.Option("--container", help="Enter the build's container, not the VM.")
    ] = False,
) -> int:
    """Open a shell in a build's VM, or run CMD there. The exit code is that of CMD or the shell.

    The VM must be running, or held by --keep-on-failure. You are its root. With --container you
    are in the build's container instead, as its root, in /work, with its environment.

    The words of CMD are passed on as they are. For a shell line write -- sh -c 'a; b'."""
    command: list[str] = context.meta.get("command") or []
    if over_server():
        return _over_server(context, build, command, into=into)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    return enter(context, build, command, into=into, terminal=into and terminal)


def _over_server(context: typer.Context, build: str, command: list[str], *, into: bool) -> int:
    """The same, by the server: as with ssh, a command in the VM is at no terminal."""
    terminal = remote_command.at_terminal() and (into or not command)
    client = server_of(context)
    from vmrunner.services.client.http_client import segment  # httpx: no other command waits for it

    path = f"/builds/{segment(build)}/terminal"
    return remote_command.run(client, path, command, terminal=terminal, container=into)


def enter(
    context: typer.Context,
    build: str,
    command: list[str],
    *,
    into: bool,
    terminal: bool,
    stdin: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: str = "/work",
) -> int:
    """Run a command in a build's VM, or in its container, from the machine with the ledger. Returns
    its exit code."""
    from vmrunner.model import BuildState
    from vmrunner.services.entering import vm_of
    from vmrunner.services.sandbox_terminal import command_words

    shell = shell_of(context)
    row = shell.ledger.builds.find(build)
    instance, access = vm_of(shell.ledger, row)
    if instance.address is None:
        raise Conflict(f"the VM of {row.id} has no address yet", hint="wait until it has booted")
    channel, address = shell.app.providers.channel_to(instance), instance.address
    if into:
        box = shell.app.providers.box_of(instance)
        held = row.state is BuildState.HELD
        if held:
            _start_again(access, channel, address, box)
        name = secrets.token_hex(16) if terminal else ""
        if command:
            command = command_words(command, cwd, env or {})
        command = box.inside(command, held=held, terminal=name)
    return _ssh(access, _stream(channel, address), command, terminal=terminal, stdin=stdin)


def _start_again(access: Access, channel: Channel, address: Address, box: Box) -> None:
    """Start the container of a build that has ended, unless it runs. Raises ExitNow when it does
    not start."""
    from vmrunner.cli.last_times import LastTimes

    words = box.inside(["true"], held=True, terminal="")
    with LastTimes().steps("ssh: ") as begin:
        expected = begin("container started again") or ", which may take a minute on a busy machine"
        output.say(f"its container is started again{expected}")
        failed = _ssh(access, _stream(channel, address), words, stdin=False)
        if failed:
            raise exit_codes.ExitNow(failed)


def _stream(channel: Channel, address: Address) -> socket.socket:
    """A connection on which the VM's sshd has spoken."""
    from vmrunner.session.ssh.banner_probe import BannerProbe

    return BannerProbe(address, channel).first_word(until=time.monotonic() + _CONNECT)


def _ssh(
    access: Access,
    stream: socket.socket,
    command: list[str],
    *,
    terminal: bool = False,
    stdin: bool = True,
) -> int:
    """The system's ssh with this instance's own key and planted host key, and nothing of the
    user's: no config, no agent, no other key. It speaks over this very connection."""
    program = shutil.which("ssh")
    if program is None:
        raise ConfigError("ssh: the program is missing", hint="apt-get install openssh-client")
    with ExitStack() as stack:
        stack.enter_context(stream)
        proxy = stack.enter_context(unix_sockets.handed_out(stream))
        key = _memory(stack, access.user_private)
        hosts = _memory(stack, f"vm {access.host_public}\n")
        troubles = _memory(stack)
        options = {
            "IdentityFile": str(key),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": str(hosts),
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": "vm",
            "StrictHostKeyChecking": "yes",
            "PreferredAuthentications": "publickey",
            "ForwardAgent": "no",
            "ServerAliveInterval": "15",
            "LogLevel": "ERROR",
            "ProxyUseFdpass": "yes",
            "ProxyCommand": proxy.replace("%", "%%"),
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        argv = [program, "-F", "none", "-E", str(troubles), *words]
        argv += ["-t"] if terminal else []
        argv += [f"{_USER}@vm"]
        if command:
            argv += [shlex.join(command)]
        source = None if stdin else subprocess.DEVNULL
        done = subprocess.run(argv, stdin=source, check=False)
        message = troubles.read_text(errors="replace").strip()
    if done.returncode == _BROKEN and message:
        raise VmrunnerError(f"ssh: {message.splitlines()[-1]}")
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def _memory(stack: ExitStack, text: str = "") -> Path:
    """A file that only this user can open, by this process's name of it, and that no disk holds:
    whatever kills us leaves no key behind."""
    fd = os.memfd_create("vmrunner-ssh")
    stack.callback(os.close, fd)
    os.fchmod(fd, 0o600)  # ssh takes no key that others might read
    os.write(fd, text.encode())
    return Path(f"/proc/{os.getpid()}/fd/{fd}")


@artifacts.command("ls")
def artifacts_ls(context: typer.Context, build: Id, form: Output = Format.TABLE) -> int:
    """List what a build brought back."""
    found = _artifacts(context, build).ls()
    output.show(_view(), found, form)
    return exit_codes.OK


@artifacts.command("get")
def artifacts_get(
    context: typer.Context,
    build: Id,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Files, directories or globs. Default: all."),
    ] = None,
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="Below this directory. Default: here.")
    ] = Path(),
) -> int:
    """Copy artifacts, and print where each is. With `--to -` one file goes to stdout."""
    found = _artifacts(context, build)
    if str(to) == "-":
        with tempfile.TemporaryDirectory() as directory:
            copied = found.download(directory, *paths) if paths else []
            if len(copied) != 1 or copied[0].is_symlink():
                raise ConfigError("to: '-' takes one file", hint="name one PATH that is no link")
            _show(copied[0])
        return exit_codes.OK
    words = artifact_destination.CopyProgress
    progress = words() if paths else words.of_all(found)
    copied = found.download(to, *(paths or ()), on_bytes=progress.add)
    for path in copied:
        output.print_path(os.fspath(path))
    output.say(artifact_destination.came(copied, to))
    return exit_codes.OK


def _artifacts(context: typer.Context, build: str) -> BuildArtifacts:
    service = shell_of(context).service
    return service.artifacts(service.ledger.builds.find(build))


def _show(path: Path) -> None:
    """A file's bytes on stdout; a terminal gets colours only, as from a log."""
    tty = sys.stdout.isatty()
    shown = terminal.Colours(sys.stdout.encoding) if tty else terminal.Plain()
    with path.open("rb") as file:
        while data := file.read(1 << 16):
            sys.stdout.buffer.write(shown.feed(data))
    sys.stdout.buffer.write(shown.finish())


def _view() -> ListView[Artifact]:
    from vmrunner.lib import units
    from vmrunner.services.documents import artifact_document

    return ListView(
        kind="artifact",
        columns=(
            Column("path", lambda a: a.path),
            Column("size", lambda a: units.amount(a.size)),
        ),
        document=artifact_document,
        empty="no artifact came back",
    )
