"""Sandboxes whose commands are processes of this host. `python -m tests.support.boxed_app ARGS` is
the command line of a vmrunner that has such, over a fake cloud."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable

from tests.support import scripted_app
from vmrunner.api.local_service import LocalService
from vmrunner.cli import main
from vmrunner.config.sources import LoadedSettings
from vmrunner.errors import NotFound
from vmrunner.model import CommandEnd, CommandOrder, CommandOutput, StreamName
from vmrunner.runtime.app import App


class HostCommand:
    """One command; what it writes to either stream is its stdout."""

    def __init__(self, order: CommandOrder) -> None:
        self.process = subprocess.Popen(
            order.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.written = b""
        self.end: CommandEnd | None = None
        self.news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            while data := os.read(stream.fileno(), 1 << 16):
                with self.news:
                    self.written += data
                    self.news.notify_all()
        code = self.process.wait()
        with self.news:
            self.end = CommandEnd(exit_code=code if code >= 0 else 128 - code)
            self.news.notify_all()


class HostCommands:
    """In the place of a sandbox's client."""

    def __init__(self) -> None:
        self.running: dict[str, HostCommand] = {}

    def start(self, order: CommandOrder) -> None:
        if order.id not in self.running:
            self.running[order.id] = HostCommand(order)

    def read(self, command: str, stdout: int, stderr: int, wait: float) -> CommandOutput:
        found = self._known(command)
        with found.news:
            found.news.wait_for(lambda: len(found.written) > stdout or found.end, wait)
            data = found.written[stdout:]
            return CommandOutput(
                stdout=data,
                stderr=b"",
                next_stdout=stdout + len(data),
                next_stderr=0,
                end=found.end,
            )

    def run(
        self, order: CommandOrder, on_output: Callable[[StreamName, bytes], object]
    ) -> CommandEnd:
        self.start(order)
        output = self.read(order.id, 0, 0, 1.0)
        on_output(StreamName.STDOUT, output.stdout)
        while output.end is None:
            output = self.read(order.id, output.next_stdout, 0, 1.0)
            on_output(StreamName.STDOUT, output.stdout)
        return output.end

    def signal(self, command: str, number: int) -> None:
        found = self._known(command)
        if found.end is None:
            os.killpg(found.process.pid, number)

    def close(self) -> None:
        """Nothing is open."""

    def _known(self, command: str) -> HostCommand:
        if command not in self.running:
            raise NotFound(f"no command {command!r} was started in this sandbox")
        return self.running[command]


def join(loaded: LoadedSettings) -> App:
    commands = HostCommands()
    LocalService.sandbox = lambda *_: commands  # type: ignore[assignment,method-assign]
    return scripted_app.join(loaded)


if __name__ == "__main__":
    sys.exit(main(join=join))
