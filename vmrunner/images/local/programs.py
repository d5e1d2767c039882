"""Programs that a build of an image needs: found, bounded in time, ended with the builder."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, TypeVar, cast

from vmrunner.errors import ConfigError, ImageError

#: program -> Debian package that has it
PACKAGES: Final[Mapping[str, str]] = {
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "mke2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "skopeo": "skopeo",
}
#: mke2fs reads the root's tar with it, and finds it only when it runs
LIBARCHIVE: Final = "libarchive13t64"

#: When the builder is gone (or says so) its program ends with all that it started. A shell stands
#: between, because mmdebstrap ignores the signal and goes on. Input is passed by number, since a
#: shell gives what runs in the background none.
_GUARD: Final = """
trap 'trap "" TERM; kill -TERM 0; sleep 2; kill -KILL 0' TERM
exec 3<&0
"$@" <&3 3<&- &
wait $!
"""

T = TypeVar("T")

_TAIL: Final = 20  # lines of output that an error shows
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(**more: str) -> dict[str, str]:
    """Return the environment of the programs: ours, with system directories on PATH and a UTF-8
    locale (mke2fs reads names in a tar by it)."""
    path = os.environ.get("PATH", "")
    return {**os.environ, "PATH": f"{path}:{_PATH}" if path else _PATH, "LC_ALL": "C.UTF-8", **more}


def which(program: str) -> str | None:
    return shutil.which(program, path=environment()["PATH"])


def require(*programs: str) -> None:
    """Raises ConfigError with the one command that installs all that is missing."""
    missing = [p for p in programs if which(p) is None]
    packages = {PACKAGES[p] for p in missing}
    if "mke2fs" in programs and not any(
        library.exists()
        for root in (Path("/usr/lib"), Path("/lib"))
        for library in root.glob("*/libarchive.so.13")
    ):
        missing.append("libarchive")
        packages.add(LIBARCHIVE)
    if missing:
        raise ConfigError(
            f"image build: {', '.join(missing)}: not installed",
            hint=f"apt-get install {' '.join(sorted(packages))}",
        )


@dataclass(eq=False)
class ChildPrograms:
    """The programs of one build, so that all of them can be ended when one fails. Thread-safe.
    `guard`: the shell's script between, which ends them on SIGTERM within `patience` seconds;
    `fetching`: variables of those that fetch packages."""

    guard: str = _GUARD
    patience: float = 15.0
    fetching: Mapping[str, str] = field(default_factory=dict)
    running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    stopped: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(
        self,
        argv: Sequence[str],
        *,
        what: str,
        timeout: float,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        line: Callable[[str], None] | None = None,
    ) -> str:
        """Run to the end and return the last of its output (standard error only when `stdout`
        is given). Raises ImageError, after ending it, on failure or after `timeout` seconds."""
        child = self.start(argv, stdin=stdin, stdout=stdout, env=env, cwd=cwd)
        tail: deque[str] = deque(maxlen=400)
        try:
            done = _pump(child, timeout, tail, line)
        finally:
            self.end(child)
        shown = "\n".join(list(tail)[-_TAIL:])
        if not done:
            raise ImageError(f"{what}: not done after {timeout:.0f} s\n{shown}")
        if child.returncode:
            raise ImageError(f"{what}: {argv[0]} failed with {child.returncode}\n{shown}")
        return "\n".join(tail)

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start in a session of its own; the kernel ends it when this thread is gone."""
        with self._lock:
            if self.stopped:
                raise ImageError("stopped")
            child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--", "sh", "-c", self.guard, "sh", *argv],
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=subprocess.PIPE if stdout is None else stdout,
                stderr=subprocess.STDOUT if stdout is None else subprocess.PIPE,
                env=dict(env) if env is not None else environment(),
                cwd=cwd,
                start_new_session=True,
            )
            self.running.add(child)
        return child

    def end(self, child: subprocess.Popen[bytes]) -> None:
        """End a program and its children: asked first, then forced. Nothing when it has ended."""
        if child.poll() is None:
            self._ask(child)
            try:
                child.wait(self.patience)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(15)
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                stream.close()
        with self._lock:
            self.running.discard(child)

    def stop(self) -> None:
        """End all of them, and start no more."""
        with self._lock:
            self.stopped = True
            children = list(self.running)
        for child in children:
            self._ask(child)

    def _ask(self, child: subprocess.Popen[bytes]) -> None:
        """Ask the guard alone to end: it knows how what it guards wants to be told."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(child.pid, signal.SIGTERM)


def joined(write: Callable[[IO[bytes]], object], read: Callable[[IO[bytes]], T]) -> T:
    """Run both ends of a pipe, and return what `read` does. Each end stays open until its error is
    noted, so that what failed first is raised, and not what the other end makes of it."""
    errors: list[BaseException] = []

    def end(file: IO[bytes], work: Callable[[IO[bytes]], Any]) -> Any:
        try:
            return work(file)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)
        finally:
            with contextlib.suppress(BrokenPipeError):
                file.close()

    out, into = os.pipe()
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(end, os.fdopen(out, "rb"), read)
        end(os.fdopen(into, "wb"), write)
    if errors:
        raise errors[0]
    return cast("T", result.result())


def _pump(
    child: subprocess.Popen[bytes],
    timeout: float,
    tail: deque[str],
    line: Callable[[str], None] | None,
) -> bool:
    """Read its output to the end. False: the time is over and it still runs."""
    deadline = time.monotonic() + timeout
    stream = child.stdout or child.stderr
    assert stream is not None
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while (remaining := deadline - time.monotonic()) > 0:
            if not selector.select(min(remaining, 1.0)):
                if child.poll() is not None:
                    break  # something that it left behind holds the pipe
                continue
            block = os.read(stream.fileno(), 1 << 16)
            if not block:
                break
            *lines, rest = (rest + block).replace(b"\r", b"\n").split(b"\n")
            rest = rest[-4096:]
            for raw in lines:
                text = raw.decode("utf-8", "replace")
                tail.append(text)
                if line is not None:
                    line(text)
    if rest:
        tail.append(rest.decode("utf-8", "replace"))
    try:
        child.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True
