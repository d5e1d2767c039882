"""A local cloud with real VMs as a program: says on stdout what goes into a configuration, and then
serves until Ctrl-C or SIGTERM, which end all of its VMs."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from vmrunner.errors import VmrunnerError
from vmrunner_localclouds.vms.host import Vms

#: VMs at once that a configuration should allow, for a laptop.
MOST_VMS: Final = 4
#: The VMs' addresses: a firewall that lets a client in lets these in.
LOOPBACK: Final = "127.0.0.0/8"


class VmProgram(Protocol):
    def start(self, port: int = 0) -> None: ...
    def stop(self) -> None: ...


C = TypeVar("C", bound=VmProgram)


def arguments(module: str, what: str, *, port: int) -> argparse.ArgumentParser:
    """The parser for `python -m MODULE`, which is `what` with real VMs."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=f"{what} with real VMs. Says on stdout what goes into a configuration.",
    )
    parser.add_argument("--port", type=int, default=port, help=f"{port}; 0 takes a free one")
    return parser


def run(port: int, make: Callable[[Vms], C], config: Callable[[C], str]) -> int:
    """Serve what `make` makes, once started; the exit code. `config`: what goes to stdout."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        vms = Vms.open()
        if vms.warning:
            print(vms.warning, file=sys.stderr)  # noqa: T201
        _serve(make(vms), port, config)
    except (VmrunnerError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _serve(cloud: C, port: int, config: Callable[[C], str]) -> None:
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before there are threads: they inherit it
    cloud.start(port)
    try:
        print(config(cloud), end="", flush=True)  # noqa: T201
        print("serving until Ctrl-C; its VMs end with it", file=sys.stderr, flush=True)  # noqa: T201
        signal.sigwait(ends)
    finally:
        cloud.stop()
