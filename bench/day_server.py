"""The PostgreSQL of `bench/day.py`."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.support import postgres


class Server:
    """A PostgreSQL of its own that can be stopped and started again. `statements`: it counts them
    (pg_stat_statements)."""

    def __init__(self, *, statements: bool = False) -> None:
        self._stack = ExitStack()
        self.home, prefix = self._stack.enter_context(postgres.home_of_server())
        bin_ = postgres.programs()
        subprocess.run(
            [*prefix, bin_ / "initdb", "-D", self.home / "data", "-U", postgres.USER, "-A",
             "trust"],
            check=True, capture_output=True, cwd=self.home,
        )  # fmt: skip
        self._command = [
            *prefix, bin_ / "postgres", "-D", self.home / "data", "-k", self.home, "-h", "", "-F",
        ]  # fmt: skip
        if statements:
            self._command += ["-c", "shared_preload_libraries=pg_stat_statements"]
        self._cpu = 0.0
        self._running: Any = None
        self.start()
        self.databases = postgres.Server(self.home)

    def start(self) -> None:
        self._running = postgres.serving(self._command, self.home)
        self._process = self._running.__enter__()

    def stop(self) -> None:
        self._cpu = self.cpu
        running, self._running = self._running, None
        running.__exit__(None, None, None)

    @property
    def cpu(self) -> float:
        """CPU seconds of all its processes so far."""
        return self._cpu + (cpu_of(self._process.pid) if self._running else 0.0)

    def close(self) -> None:
        if self._running:
            self.stop()
        self._stack.close()


def cpu_of(pid: int) -> float:
    """CPU seconds of a process, its present children and those that it has waited for."""
    ticks = 0
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for number, fields in ((pid, 4), *((int(child), 2) for child in children)):
        try:
            stat = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += sum(map(int, stat[11 : 11 + fields]))
    return ticks / 100
