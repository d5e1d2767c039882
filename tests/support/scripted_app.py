"""A vmrunner whose clouds are fake and whose builds do what their steps spell, for tests of the
command line and the API: the parts are joined through `App`, as in production.

A step's lines: `say TEXT` · `many COUNT [BYTES]` (numbered lines) · `hex BYTES` · `sleep SECONDS`
· `deaf SECONDS` (to any wish) · `until FILE` (exists)
· `pull FILE` (first, the container's image, until FILE exists) · `exit CODE`
· `artifact PATH TEXT` · `bring FILE` (12 MiB of artifacts came, the rest once FILE is there)
· `use FIGURE NUMBER` · `lose` (the VM).
`python -m tests.support.scripted_app ARGS` is its command line.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from vmrunner.cli import main
from vmrunner.config.sources import LoadedSettings
from vmrunner.model import BuildState, BuildUsage, Reason, Result
from vmrunner.providers.fake import FakeProvider
from vmrunner.providers.fake import open as open_fake
from vmrunner.runtime.app import App
from vmrunner.runtime.background import BackgroundEngines
from vmrunner.session import End, Reporter, SessionJob
from vmrunner.session.job import order


class Scripted:
    """A session that needs no VM."""

    def __init__(self, job: SessionJob, reporter: Reporter) -> None:
        self._job = job
        self._reporter = reporter
        self._stopped = threading.Event()
        self._reason: Reason | None = None
        self._offset = reporter.stored()
        self._used: dict[str, float] = {}

    def stop(self, reason: Reason) -> None:
        self._reason = reason
        self._stopped.set()

    def run(self) -> End:
        say = self._reporter
        say.state(BuildState.CONNECTING)
        say.state(BuildState.PREPARING)
        if self._job.build.spec.sandbox_ttl is not None:
            say.steps_started()
            say.state(BuildState.RUNNING)
            self._stopped.wait()
            assert self._reason is not None
            over = self._reason is Reason.DEADLINE
            return End(result=Result.TIMEOUT if over else Result.CANCELLED, reason=self._reason)
        first = self._job.build.spec.steps[0].argv
        if first[:1] == ("source",):
            say.busy()
            self._line("until", first[1])
        say.steps_started()
        say.state(BuildState.RUNNING)
        verdict = replace(self._steps(), usage=BuildUsage(**self._used))
        globs = [
            rule
            for rule in self._job.build.spec.artifacts
            if rule.always or verdict.result is Result.SUCCESS
        ]
        if verdict.lost or verdict.result is Result.CANCELLED or not globs:
            return verdict
        say.state(BuildState.COLLECTING)
        lines = (self._job.build.spec.steps[0].run or "").splitlines()
        for line in lines:
            if line.startswith("bring "):
                say.event("collecting", bytes=12 << 20)
                self._line("until", line.removeprefix("bring "))
        return verdict

    def _steps(self) -> End:
        for number, step in enumerate(self._job.build.spec.steps):
            lines = step.run.splitlines() if step.run is not None else [" ".join(step.argv)]
            while lines and lines[0].startswith("pull "):
                self._reporter.event("pulling", offset=self._offset)
                self._line("until", lines.pop(0).partition(" ")[2])
                self._reporter.event("container", offset=self._offset)
            self._reporter.event("step_started", step=number, offset=self._offset)
            for line in lines:
                verdict = self._line(*line.partition(" ")[::2])
                if self._stopped.is_set():
                    assert self._reason is not None
                    return End(result=Result.CANCELLED, reason=self._reason)
                if verdict is not None:
                    code = verdict.exit_code or 0
                    self._ended(number, code)
                    return verdict
            self._ended(number, 0)
        return End(result=Result.SUCCESS, reason=Reason.EXIT_CODE, exit_code=0)

    def _ended(self, number: int, code: int) -> None:
        data = {"step": number, "exit_code": code, "seconds": 0.1, "offset": self._offset}
        self._reporter.event("step_ended", **data)

    def _line(self, word: str, rest: str) -> End | None:
        if word in ("say", "hex", "many"):
            for data in _output(word, rest):
                self._log(data)
        elif word == "env":
            self._log(json.loads(order(self._job, 0.0))["env"].get(rest, "").encode() + b"\n")
        elif word in ("sleep", "deaf"):
            (self._stopped if word == "sleep" else threading.Event()).wait(float(rest))
        elif word in ("source", "bring"):
            pass  # it went in before the steps, or comes after them
        elif word == "until":
            while not Path(rest).exists() and not self._stopped.wait(0.02):
                pass
        elif word == "artifact":
            path, _, text = rest.partition(" ")
            target = self._job.artifacts / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        elif word == "use":
            name, _, figure = rest.partition(" ")
            self._used[name] = float(figure) if "seconds" in name else int(figure)
        elif word == "lose":
            return End(result=Result.ERROR, reason=Reason.VM_LOST, lost=True)
        elif word == "exit":
            code = int(rest)
            result = Result.FAILURE if code else Result.SUCCESS
            return End(result=result, reason=Reason.EXIT_CODE, exit_code=code)
        else:
            raise AssertionError(f"no such word: {word!r}")
        return None

    def _log(self, data: bytes) -> None:
        self._offset += len(data)
        self._reporter.log(self._offset, data)


def _output(word: str, rest: str) -> Iterator[bytes]:
    if word == "say":
        yield rest.encode() + b"\n"
    elif word == "hex":
        yield bytes.fromhex(rest)
    else:
        count, _, width = rest.partition(" ")
        for first in range(1, int(count) + 1, 3000):
            numbers = range(first, min(first + 3000, int(count) + 1))
            lines = (f"line {number} of many".ljust(int(width or 0), "x") for number in numbers)
            yield "".join(f"{line}\n" for line in lines).encode()


class ScriptedApp(App):
    """Every provider is a fake one in this process's memory."""

    program: ClassVar = (sys.executable, "-m", "tests.support.scripted_app")

    def open_provider(self, name: str) -> FakeProvider:
        return open_fake(name)

    def sessions(self) -> type[Scripted]:
        return Scripted


class CountedEngines(BackgroundEngines):
    """Counted, not started."""

    count = 0

    def spawn(self) -> None:
        self.count += 1


class CountedApp(ScriptedApp):
    """No engine is left behind when a test's runner closes."""

    background: CountedEngines
    background_engines: ClassVar = CountedEngines


def join(loaded: LoadedSettings) -> App:
    return ScriptedApp(loaded.settings)


def wait_until(true: object, *, seconds: float = 20, what: str = "it") -> None:
    """Poll until `true()` holds."""
    assert callable(true)
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        threading.Event().wait(0.02)


def numbered(count: int) -> Iterator[str]:
    """A script that says `count` lines."""
    for number in range(1, count + 1):
        yield f"say line {number}"


if __name__ == "__main__":
    sys.exit(main(join=join))
