"""vmrunner as GitLab Runner calls it, over a cloud in a file, with sandboxes that are directories
of this host: `python -m tests.support.gitlab_app ARGS`.

A sandbox's commands run here, in `boxes/ID/work` of the directory that `CLOUD_FILE` is in. When the
cloud's VM is dead, the sandbox is lost.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

from tests.support.file_cloud import FileApp, FileCloud
from tests.support.scripted_app import Scripted
from vmrunner.api.local_service import LocalService
from vmrunner.cli import main
from vmrunner.config.sources import LoadedSettings
from vmrunner.errors import NotFound, SandboxOver
from vmrunner.model import BuildState, CommandEnd, CommandOrder, Reason, Result, StreamName
from vmrunner.session import End

Tell = Callable[[StreamName, bytes], object]


def cloud() -> FileCloud:
    return FileCloud(Path(os.environ["CLOUD_FILE"]))


class _Kept(Scripted):
    """A session that keeps its VM until somebody wishes its end."""

    def run(self) -> End:
        say = self._reporter
        for state in (BuildState.CONNECTING, BuildState.PREPARING):
            say.state(state)
        say.steps_started()
        say.state(BuildState.RUNNING)
        refused = Path(os.environ["CLOUD_FILE"]).with_name("lose")
        while not self._stopped.wait(0.05):
            if refused.exists():
                refused.unlink()
                return End(result=Result.ERROR, reason=Reason.VM_LOST, lost=True)
        return End(result=Result.CANCELLED, reason=self._reason or Reason.USER)


class _App(FileApp):
    program: ClassVar = (sys.executable, "-m", "tests.support.gitlab_app")

    def sessions(self) -> type[Scripted]:
        return _Kept


class Box:
    """One sandbox."""

    def __init__(self, name: str) -> None:
        self.id = name
        self._root = Path(os.environ["CLOUD_FILE"]).with_name("boxes") / name
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def _path(self, name: str) -> Path:
        return self._root / name.lstrip("/")

    def write_file(self, path: str, data: Iterable[bytes]) -> None:
        self._check()
        at = self._path(path)
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(b"".join(data))

    def run(self, order: CommandOrder, on_output: Tell) -> CommandEnd:
        self._check()
        words = [str(self._path(w)) if w.startswith("/work/") else w for w in order.argv]
        where = self._path(order.cwd)
        where.mkdir(parents=True, exist_ok=True)
        out, err = subprocess.PIPE, subprocess.PIPE
        # In a VM it hears no signal of this host.
        process = subprocess.Popen(words, cwd=where, stdout=out, stderr=err, start_new_session=True)
        self._running[order.id] = process
        written = process.communicate()
        self._check()
        for name, data in zip(StreamName, written, strict=True):
            on_output(name, data)
        code = process.returncode
        return CommandEnd(exit_code=code if code >= 0 else 128 - code)

    def signal(self, command: str, number: int) -> None:
        if command not in self._running:
            raise NotFound(command)
        os.killpg(self._running[command].pid, number)

    def _check(self) -> None:
        if not any(vm["tags"].get("vmrunner:build") == self.id for vm in cloud().alive().values()):
            raise SandboxOver(f"sandbox {self.id} is gone")

    def close(self) -> None:
        """Nothing is open."""


def join(loaded: LoadedSettings) -> _App:
    LocalService.sandbox = lambda _, name: Box(name)  # type: ignore[assignment,method-assign]
    return _App(loaded.settings)


if __name__ == "__main__":
    sys.exit(main(join=join))
