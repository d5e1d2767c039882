"""CPU time of the commands that people type all day, beside the libraries that every one loads.

    python bench/startup.py [--rounds 15]

Each command runs once a round, in turns; the median of user and system time of its process. The
floor is `python -c "import typer, rich"`, and goals are multiples of it, so that they hold on any
machine. The ledger has one finished build. The first run of each command, which writes byte code
and finds the configuration valid, does not count.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.ledger_builds import started
from vmrunner.ledger import Ledger
from vmrunner.model import Reason, Result

VMRUNNER = Path(sys.executable).with_name("vmrunner")
FLOOR = "python -c 'import typer, rich'"
LIBRARIES = "python -c 'import typer, rich, pydantic, sqlalchemy'"
#: What is measured, and the goal as a multiple of the floor.
COMMANDS: dict[str, tuple[list[str], float | None]] = {
    FLOOR: ([sys.executable, "-c", "import typer, rich"], None),
    LIBRARIES: ([sys.executable, "-c", "import typer, rich, pydantic, sqlalchemy"], None),
    "vmrunner --help": ([str(VMRUNNER), "--help"], 1.5),
    "vmrunner ps -a": ([str(VMRUNNER), "ps", "-a"], 2.5),
    "vmrunner show b-1": ([str(VMRUNNER), "show", "b-1"], 2.5),
    "vmrunner logs b-1": ([str(VMRUNNER), "logs", "b-1"], 2.5),
    "vmrunner vm ls": ([str(VMRUNNER), "vm", "ls"], 2.5),
    "vmrunner costs": ([str(VMRUNNER), "costs"], 2.5),
    "vmrunner config show": ([str(VMRUNNER), "config", "show"], None),
    "vmrunner run --dry-run": ([str(VMRUNNER), "run", "--dry-run", "--", "true"], 3.75),
}


def cpu(command: list[str], environment: dict[str, str]) -> float:
    """User and system time of one run, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, check=False, capture_output=True)
    if done.returncode not in (0, 125):  # 125: a dry run without an image, told last of all
        raise SystemExit(done.stderr.decode())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="vmrunner-startup-") as home:
        environment = {**os.environ, "HOME": home, "NO_COLOR": "1"}
        environment |= {f"XDG_{name}_HOME": f"{home}/{name}" for name in ("CONFIG", "DATA")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # the first run writes it
        # The cache stays the user's: a dry run looks for the VM image there.
        environment.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        data = Path(home) / "DATA/vmrunner"
        ledger = Ledger.open(f"sqlite:///{data}/ledger.db", data_dir=data)
        started(ledger)
        ledger.builds.finish(
            "b-1", epoch=1, result=Result.SUCCESS, reason=Reason.EXIT_CODE, exit_code=0, now=105.0
        )
        ledger.close()
        times: defaultdict[str, list[float]] = defaultdict(list)
        for number in range(rounds + 1):
            for name, (command, _) in COMMANDS.items():
                seconds = cpu(command, environment)
                if number:  # the first run of each fills caches
                    times[name].append(seconds)
    table = Table("command", "CPU, median", "best", "of the floor", "goal")
    floor = statistics.median(times[FLOOR])
    for name, (_, goal) in COMMANDS.items():
        median = statistics.median(times[name])
        table.add_row(
            name,
            f"{median:.3f} s",
            f"{min(times[name]):.3f} s",
            f"{median / floor:.2f}×",
            "" if goal is None else f"{goal}×",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
