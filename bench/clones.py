"""Memory of idle clones: what the tenth, unused VM of a template costs.

    .venv/bin/python bench/clones.py [--clones 10] [--settle 60] [--disk 8GiB]

A `vmrunner serve` of its own fills a pool. A host holds as many VMs as its disk has room for if all
of them fill theirs: a small `--disk`, which has a template of its own, lets ten be there. Private
memory is what a clone alone holds, PSS counts what clones share by parts; both are of its QEMU. Of
private memory: `code` is what the emulator translated, `guest` what the guest wrote since it woke.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.hot import VMRUNNER, serving, until, waiting

CONFIG = """
[providers.local]
kind = "qemu"
cpus = 1
disk = "{disk}"
max_instances = {most}
[pools.fast]
network = "none"
size = {size}
ttl = "1h"
idle = "1h"
"""
GOAL = 80  # MiB, of the tenth


def qemu_of(vm: str) -> int:
    """The process id of a VM's QEMU, which bears its name."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes()
        except OSError:
            continue
        if text.split(b"\0")[0].rpartition(b"/")[2].startswith(b"qemu-") and vm.encode() in text:
            return int(path.parent.name)
    raise SystemExit(f"no QEMU of {vm}")


def memory(pid: int) -> tuple[float, float, float, float]:
    """Return private memory, what of it is code and the guest's, and PSS, in MiB."""
    private, pss, kind = Counter[str](), 0.0, ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):  # a mapping: its addresses, rights, …, and its file
            file = rest[4] if len(rest) > 4 else ""
            # (the file of memory lies on a mount that is in no tree)
            kind = "guest" if file == "/" else "code" if "x" in rest[0] and not file else ""
        elif name.startswith("Private_") and name != "Private_Hugetlb:":
            private[kind] += int(rest[0])
        elif name == "Pss:":
            pss += int(rest[0])
    parts = (private.total(), private["code"], private["guest"], pss)
    total, code, guest, shared = (part / 1024 for part in parts)
    return total, code, guest, shared


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clones", type=int, default=10)
    parser.add_argument("--settle", type=float, default=60.0, help="seconds that they idle first")
    parser.add_argument("--disk", default="8GiB", help="of each")
    args = parser.parse_args()
    from vmrunner import Runner

    shape = ["--network", "none", "--cpus", "1", "--disk", args.disk]
    subprocess.run([VMRUNNER, "image", "template", *shape], check=True)
    config = CONFIG.format(size=args.clones, most=args.clones + 1, disk=args.disk)
    with (
        tempfile.TemporaryDirectory(prefix="vmrunner-bench-") as name,
        serving(Path(name), config),
        Runner() as runner,
    ):
        until(lambda: waiting(runner) == args.clones, "the pool to be full", 900)
        time.sleep(args.settle)
        rows = sorted(runner.app.ledger.instances.open(), key=lambda row: row.created_at)
        found = [(row.start, *memory(qemu_of(row.id))) for row in rows]
    table = Table(title="idle clones of one template", title_justify="left")
    for column in ("clone", "start", "private MiB", "code", "guest", "PSS MiB"):
        table.add_column(column, justify="left" if column == "start" else "right")
    for number, (start, *sizes) in enumerate(found, 1):
        table.add_row(str(number), str(start), *(f"{size:.1f}" for size in sizes))
    console = Console()
    console.print(table)
    console.print(f"goal: the tenth holds ≤ {GOAL} MiB of its own")
    return 0


if __name__ == "__main__":
    sys.exit(main())
