"""Commands of a sandbox beside a command over an SSH connection that is open already, to its VM.

    .venv/bin/python bench/sandbox.py [--rounds 30]

The sandbox starts from a template, its engine is in this process, and both take turns. Files: 64
MiB up and down, beside `cat` over that connection, and `scp` over one of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from vmrunner import Sandbox
from vmrunner.lib import unix_sockets
from vmrunner.lib.channels import UNIX_SOCKET
from vmrunner.session.ssh.client import Connection, Dialer

GOAL = 1.5
FILE = 64 << 20


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def connect(sandbox: Sandbox) -> Connection:
    ledger = sandbox.runner.app.ledger
    row = ledger.instances.get(sandbox.info().instance or "")
    assert row.address is not None
    dialer = Dialer(ledger.instances.access(row.id), channel=UNIX_SOCKET)
    return dialer.connect(row.address, timeout=60)


def scp(sandbox: Sandbox, place: Path) -> Callable[[str, str], object]:
    """A copy by the system's `scp`; `vm:PATH` is in the VM."""
    ledger = sandbox.runner.app.ledger
    row = ledger.instances.get(sandbox.info().instance or "")
    access = ledger.instances.access(row.id)
    address = row.address
    assert address is not None
    (place / "key").touch(mode=0o600)
    (place / "key").write_text(access.user_private)
    (place / "hosts").write_text(f"vm {access.host_public}\n")
    argv: list[str | Path] = ["scp", "-q", "-F", "none", "-i", place / "key"]
    argv += ["-o", "IdentitiesOnly=yes"]
    argv += ["-o", f"UserKnownHostsFile={place / 'hosts'}", "-o", "HostKeyAlias=vm"]
    argv += ["-o", "ProxyUseFdpass=yes"]

    def copy(*ends: str) -> None:
        with UNIX_SOCKET.open(address) as stream, unix_sockets.handed_out(stream) as proxy:
            named = (f"root@{end}" if end.startswith("vm:") else end for end in ends)
            subprocess.run([*argv, "-o", f"ProxyCommand={proxy}", *named], check=True)

    return copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="vmrunner-bench-") as home:
        for name in ("DATA", "CONFIG", "STATE"):
            os.environ[f"XDG_{name}_HOME"] = f"{home}/{name.lower()}"
        os.environ["VMRUNNER_PROVIDERS__LOCAL__CPUS"] = "1"
        began = time.monotonic()
        with Sandbox.create(owned=True, network="open", ttl="30m") as sandbox:
            created = time.monotonic() - began
            start = sandbox.runner.app.ledger.instances.get(sandbox.info().instance or "").start
            connection = connect(sandbox)
            works: dict[str, Callable[[], object]] = {
                'run(["true"])': lambda: sandbox.run(["true"]),
                'run("true")': lambda: sandbox.run("true"),
                "reused ssh": lambda: connection.run("true"),
            }
            times: dict[str, list[float]] = {name: [] for name in works}
            for number in range(rounds + 1):
                for name, work in works.items():
                    seconds = timed(work)
                    if number:  # the first of each fills caches
                        times[name].append(seconds)
            data = os.urandom(FILE)
            files = {
                "files.write": timed(lambda: sandbox.files.write("/work/f", data)),
                "files.read": timed(lambda: sandbox.files.read("/work/f")),
                "ssh cat >": timed(lambda: connection.run("cat >/f", stdin=[data], timeout=600)),
                "ssh cat <": timed(lambda: connection.stream("cat </f", lambda _: None)),
            }
            copy, local = scp(sandbox, Path(home)), Path(home) / "file"
            local.write_bytes(data)
            files["scp up"] = timed(lambda: copy(str(local), "vm:/f"))
            files["scp down"] = timed(lambda: copy("vm:/f", str(local)))
            connection.close()
    table = Table("", "p50 s", "p95 s", "of a reused ssh")
    floor = statistics.median(times["reused ssh"])
    for name, found in times.items():
        middle, p95 = statistics.median(found), statistics.quantiles(found, n=20)[-1]
        table.add_row(name, f"{middle:.3f}", f"{p95:.3f}", f"{middle / floor:.2f}×")
    Console().print(table)
    print(f"created in {created:.1f} s ({start}); goal: run ≤ {GOAL} × a reused ssh")
    for name, seconds in files.items():
        print(f"{name:12} {FILE / seconds / (1 << 20):6.1f} MiB/s")


if __name__ == "__main__":
    main()
