"""Git on the host, for unread repositories.

It never asks, runs no hook, no filter and no helper that a URL names, writes no file past a limit,
and knows of its user's configuration only how servers are reached, and that only to fetch.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmrunner.errors import ConfigError
from vmrunner.lib import units

if TYPE_CHECKING:
    from collections.abc import Iterator

# Never a prompt, never a helper program named by a URL (`ext::sh -c …`).
_ENV: Final = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
    "GIT_ASKPASS": "true",
    "GIT_ATTR_NOSYSTEM": "1",
    "LC_ALL": "C",
}
# What is kept of the user's: how servers are reached. In a hook all else names his repository.
_KEPT: Final = ("GIT_EXEC_PATH", "GIT_HTTP_", "GIT_PROXY_SSL_", "GIT_SSL_")
_WHOSE: Final = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_SYSTEM")
_SECTIONS: Final = ("credential", "http", "safe", "url")
# Nothing of a large blob in memory, one file for all that is fetched, no work left behind.
_OPTIONS: Final = (
    "core.attributesFile=/dev/null",
    "core.bigFileThreshold=16m",
    "fetch.unpackLimit=1",
    "gc.auto=0",
    "maintenance.auto=false",
)
# `ulimit` counts blocks of 512 bytes. By a shell: what runs between fork and exec of a process with
# threads may not be Python. Without the signal a process that writes too much says so.
_LIMITED: Final = ("sh", "-c", 'trap "" XFSZ && ulimit -f "$0" && exec "$@"')
_TOO_LARGE: Final = os.strerror(errno.EFBIG)


class Repository:
    """An empty one, for one revision of another."""

    def __init__(
        self, directory: Path, url: str, variables: Mapping[str, str], *, most: int, timeout: float
    ) -> None:
        """`variables` are variables that hold what git needs to know of the server."""
        self._directory = directory
        self._url = url
        self._variables = variables
        self._most = most
        self._timeout = timeout
        self._tree = ""

    def fetch(self, ref: str) -> None:
        """Raises ConfigError when the repository or the revision is not there, or git does not
        answer."""
        self._git("init", "--quiet", "--bare", "--template=")
        config = self._directory / "vmrunner-config"
        self._reach(config)
        far = {"GIT_CONFIG_GLOBAL": str(config), **self._variables}
        options = ("--quiet", "--no-recurse-submodules")
        wanted = "FETCH_HEAD"
        last = ("--depth=1", "--no-tags", "--", self._url, ref)
        if self._git("fetch", *options, *last, environ=far):
            # A short commit id is no ref: it takes the whole history to know what it means.
            everything = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
            if complaint := self._git("fetch", *options, "--", self._url, *everything, environ=far):
                raise ConfigError(
                    f"source: {self._url} cannot be fetched: {complaint}",
                    hint="check the URL, and that git can read it without asking",
                )
            wanted = ref
        self._tree = f"{wanted}^{{tree}}"
        self._wanted(self._git("rev-parse", "--quiet", "--verify", self._tree), ref)

    def archive(self, ref: str, output: int) -> None:
        """Write a tar of it. Submodules are left out: they are other repositories."""
        self._wanted(self._git("archive", "--format=tar", self._tree, stdout=output), ref)

    def _wanted(self, complaint: str, ref: str) -> None:
        if complaint:
            raise ConfigError(
                f"source: {self._url} has no {ref!r}: {complaint}",
                hint="name a branch, a tag or a commit",
            )

    def _reach(self, config: Path) -> None:
        """Write down what the user's configuration says of servers, and nothing else of it."""
        done = self._run(("config", "--null", "--list"), subprocess.PIPE, _kept(_WHOSE))
        lines = []
        for entry in done.stdout.decode("utf-8", "surrogateescape").split("\0"):
            key, equals, value = entry.partition("\n")
            section, *below = key.split(".")
            if section in _SECTIONS and below:
                *inner, name = below
                title = f'{section} "{_quoted(".".join(inner))}"' if inner else section
                lines += [f"[{title}]", f'{name} = "{_quoted(value)}"' if equals else name]
        config.touch(0o600)
        config.write_text("\n".join([*lines, ""]), "utf-8", "surrogateescape")

    def _git(
        self,
        *argv: str,
        stdout: int = subprocess.DEVNULL,
        environ: Mapping[str, str] = {"GIT_CONFIG_GLOBAL": os.devnull},
    ) -> str:
        """Empty when it succeeded, else the line of its complaint that says what is wrong."""
        done = self._run(argv, stdout, {"GIT_CONFIG_NOSYSTEM": "1", **environ})
        if done.returncode == 0:
            return ""
        if _TOO_LARGE.encode() in done.stderr:
            raise too_large(self._url, self._most)
        return complaint(done)

    def _run(
        self, argv: tuple[str, ...], stdout: int, environ: Mapping[str, str]
    ) -> subprocess.CompletedProcess[bytes]:
        options = [word for option in _OPTIONS for word in ("-c", option)]
        place = ("-C", str(self._directory), f"--git-dir={self._directory}")
        return call(
            [*_LIMITED, str(self._most // 512 + 1), "git", *place, *options, *argv],
            environ={**environment(_KEPT), **_ENV, **environ},
            timeout=self._timeout,
            source=self._url,
            hint="is its server up and reachable? try again; what takes that long can be "
            "cloned before, and given as a directory",
            stdout=stdout,
        )


def call(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    timeout: float,
    source: str,
    hint: str,
    stdout: int = subprocess.PIPE,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command of git's to its end; all that it started ends with it. Raises ConfigError,
    which names `source` and the `hint`, when it takes more than `timeout` seconds."""
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environ,
        process_group=0,
    ) as child:
        try:
            output, errors = child.communicate(timeout=timeout)
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)  # the helper that waits for the server too
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise ConfigError(
                f"source: {source}: git did not answer in {units.exact(timeout)}", hint=hint
            ) from None
    return subprocess.CompletedProcess(child.args, child.returncode, output, errors)


def complaint(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return the line of git's complaint that says what is wrong."""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    # Advice follows the first fatal line: "Please make sure you have the correct access …".
    fatal = [line.removeprefix("fatal: ") for line in lines if line.startswith("fatal: ")]
    return (fatal or lines[-1:] or [f"exit code {done.returncode}"])[0]


def environment(kept: tuple[str, ...]) -> dict[str, str]:
    """Return this environment, and of git's own variables those that begin with one of `kept`."""
    return _kept(kept, also=True)


def too_large(source: str, most: int) -> ConfigError:
    """Return the error for a source that is larger than `most` bytes."""
    return ConfigError(
        f"source: {source} is larger than {units.amount(most)}",
        hint="leave out what the build does not need, or raise limits.source_bytes",
    )


def _kept(names: tuple[str, ...], *, also: bool = False) -> dict[str, str]:
    """Return git's own variables of this environment that begin with one of `names`. With `also`,
    add all variables that are not git's."""
    return {
        name: value
        for name, value in os.environ.items()
        if (also and not name.startswith("GIT_")) or name.startswith(names)
    }


def _quoted(text: str) -> str:
    """Quote a text as git's configuration has it between double quotes."""
    for plain, written in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t")):
        text = text.replace(plain, written)
    return text


@contextmanager
def fetched(
    url: str, ref: str, variables: Mapping[str, str], *, most: int, timeout: float
) -> Iterator[Repository]:
    """Fetch one revision of a repository and keep it while inside. Raises ConfigError."""
    with tempfile.TemporaryDirectory(prefix="vmrunner-git-") as directory:
        repository = Repository(Path(directory), url, variables, most=most, timeout=timeout)
        repository.fetch(ref)
        yield repository
