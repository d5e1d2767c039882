"""Runs of the command line in processes of their own, over fake clouds."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.support.scripted_app import wait_until
from vmrunner.config import sources
from vmrunner.config.paths import Paths
from vmrunner.ledger import Ledger
from vmrunner.model import BuildRecord
from vmrunner.runtime.ledger_opener import LedgerOpener

ROOT = Path(__file__).parents[2]
CONFIG = "default_provider = 'fake'\n[providers.fake]\nkind = 'fake'\n"


class Home:
    """A vmrunner of its own, whose clouds are fake. `program` is the module of its command line."""

    def __init__(self, root: Path, program: str = "tests.support.scripted_app") -> None:
        self.root = root
        self.program = program
        self.started: list[subprocess.Popen[bytes]] = []
        (root / "vmrunner.toml").write_text(CONFIG)
        foreign = ("VMRUNNER_", "GITHUB_", "GITLAB_", "NO_COLOR")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        xdg = {f"XDG_{name}_HOME": str(root / name.lower()) for name in ("DATA", "CONFIG", "CACHE")}
        self.env = kept | xdg | {"PYTHONPATH": str(ROOT), "TERM": "xterm"}

    def start(self, *argv: str, **options: Any) -> subprocess.Popen[bytes]:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        process = subprocess.Popen(
            [sys.executable, "-m", self.program, *argv],
            cwd=self.root,
            env=self.env,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            **options,
        )
        self.started.append(process)
        return process

    def run(self, *argv: str) -> tuple[int, bytes, bytes]:
        process = self.start(*argv)
        out, err = finish(process)
        return process.returncode, out, err

    def job(self, *lines: str) -> tuple[str, ...]:
        path = self.root / "job.yml"
        path.write_text(json.dumps({"jobs": {"j": {"steps": ["\n".join(lines)]}}}))
        return ("-f", str(path), "j")

    @cached_property
    def ledger(self) -> Ledger:
        """Read here: a process of its own costs a second."""
        environ = {"VMRUNNER_DATABASE_URL": f"sqlite:///{self.root}/data/vmrunner/ledger.db"}
        loaded = sources.load(environ=environ, start=self.root)
        paths = Paths(data=self.root / "data/vmrunner", cache=self.root)
        self._opener = LedgerOpener(loaded.settings, paths)  # it closes with the last of these
        return self._opener.open()

    def builds(self) -> list[BuildRecord]:
        return self.ledger.builds.list()

    def engines(self) -> list[int]:
        """Pids of background engines of this home."""
        mark = f"XDG_DATA_HOME={self.root}/data".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                serving = b"--until-idle" in (entry / "cmdline").read_bytes()
                if serving and mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except (OSError, ValueError):
                continue
        return found


@contextlib.contextmanager
def own(root: Path, **options: str) -> Iterator[Home]:
    """One that leaves no process behind."""
    home = Home(root, **options)
    yield home
    home.ledger.close()
    for process in home.started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    for pid in home.engines():
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not home.engines(), what="the background engine to end")


def finish(process: subprocess.Popen[bytes], seconds: float = 40) -> tuple[bytes, bytes]:
    """Its output; what it said so far, when it does not end."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"no end after {seconds} s: {out!r}\n{err.decode()}") from None


def read_until(process: subprocess.Popen[bytes], word: bytes) -> bytes:
    assert process.stderr is not None
    text = b""
    while word not in text:
        line = process.stderr.readline()
        assert line, text
        text += line
    return text
