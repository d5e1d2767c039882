"""How fast a build's log comes in, beside the plain `ssh` program, on a local sshd.

    python bench/logs.py [--mib 256] [--pairs 5]

Ours is the whole way: the supervisor's follower, SSH, frames, masking of three secrets, batches to
a file. The reference is `ssh … cat > file`. Stock Fabric is measured on 4 MiB: its capture is
quadratic. Runs are interleaved and medians compared; memory is this process's growth.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import fabric
import paramiko
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.guest import Guest, booted, job
from tests.support.sshd import Sshd, running
from vmrunner.guest.state import EventLog, Place
from vmrunner.session.log_relay import LogRelay
from vmrunner.session.protocol import FrameDecoder, LogFrame
from vmrunner.session.ssh import client

MIB = 1 << 20
STOCK = 4 * MIB
SECRETS = (  # of the usual lengths; short ones cost more: each is looked for in every form
    b"ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    b"correct horse battery",
)


class ToFile:
    """A reporter that stores batches as a ledger would, without one."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.offset = 0

    def log(self, offset: int, data: bytes) -> None:
        self.file.write(data)
        self.offset = offset


def fill(guest: Guest, size: int) -> None:
    """A finished build's spool with a log of that size."""
    place = Place(str(guest.run), str(guest.directory / "lib"))
    place.make()
    place.write("job.json", job("true").decode())
    written = 0
    with Path(place.log).open("wb") as log:
        while written < size:
            lines = b"".join(
                b"[%9d] compiling src/module_%d.c: nothing to see here\n" % (n, n % 97)
                for n in range(written, written + 20_000)
            )
            written += log.write(lines)
    EventLog(place.events).add("ended", written, reason="exit_code", exit_code=0, message="")


def ours(connection: client.Connection, guest: Guest, target: Path) -> int:
    with target.open("wb") as file:
        reporter: Any = ToFile(file)
        relay = LogRelay(reporter, SECRETS, 0)
        frames = FrameDecoder(offset=0, steps=1, log_bytes=1 << 40)

        def hear(data: bytes) -> None:
            for frame in frames.feed(data):
                if isinstance(frame, LogFrame):
                    relay.feed(frame.data)

        done = connection.stream(f"{guest.supervisor} follow --epoch 1 0 0", hear, pulse=relay.wait)
        relay.finish()
    assert done.exit_code == 0, done
    return target.stat().st_size


def reference(sshd: Sshd, directory: Path, source: Path, target: Path) -> int:
    key, known_hosts = directory / "key", directory / "known"
    if not key.exists():
        key.touch(0o600)
        key.write_text(sshd.access.user_private)
        known_hosts.write_text(
            f"[{sshd.address.host}]:{sshd.address.port} {sshd.access.host_public}\n"
        )
    with target.open("wb") as file:
        argv = ["ssh", "-F", "none", "-i", str(key), "-o", f"UserKnownHostsFile={known_hosts}"]
        where = ["-p", str(sshd.address.port), f"{sshd.user}@{sshd.address.host}"]
        subprocess.run([*argv, *where, f"cat {source}"], stdout=file, check=True)
    return target.stat().st_size


def stock(sshd: Sshd, source: Path) -> int:
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(sshd.access.user_private))
    with fabric.Connection(
        sshd.address.host, sshd.user, sshd.address.port, connect_kwargs={"pkey": key}
    ) as connection:
        done = connection.run(f"head -c {STOCK} {source}", hide=True, in_stream=False)
    return len(done.stdout)


def rate(work: Callable[[], int]) -> float:
    """Bytes a second."""
    begun = time.perf_counter()
    return work() / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "sshd").mkdir()
        with running(root / "sshd") as sshd, booted(root / "vm") as guest:
            fill(guest, options.mib * MIB)
            spool = guest.run / "spool" / "log"
            connection = client.Dialer(sshd.access, user=sshd.user).connect(
                sshd.address, timeout=20
            )
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            rates: dict[str, list[float]] = {"ssh cat": [], "vmrunner": []}
            plain, whole = root / "plain", root / "whole"
            for _ in range(options.pairs):
                rates["ssh cat"].append(rate(lambda: reference(sshd, root, spool, plain)))
                rates["vmrunner"].append(rate(lambda: ours(connection, guest, whole)))
                assert subprocess.run(["cmp", plain, whole], check=False).returncode == 0
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            connection.close()
            rates["stock Fabric, 4 MiB"] = [rate(lambda: stock(sshd, spool))]
    table = Table(title=f"{options.mib} MiB of log, median of {options.pairs}")
    for column in ("", "MB/s", "spread", "× ssh cat"):
        table.add_column(column, justify="right" if column else "left")
    base = statistics.median(rates["ssh cat"])
    for what, found in rates.items():
        middle = statistics.median(found)
        spread = f"{min(found) / 1e6:.0f}–{max(found) / 1e6:.0f}"
        table.add_row(what, f"{middle / 1e6:.1f}", spread, f"{middle / base:.2f}")
    console = Console()
    console.print(table)
    console.print(f"memory grew by {grown / 1024:.1f} MiB; load {os.getloadavg()[0]:.1f}")
    console.print(json.dumps({k: [round(x) for x in v] for k, v in rates.items()}))


if __name__ == "__main__":
    main()
