"""`vmrunner gitlab config|prepare|run|cleanup`: the programs of a custom executor of GitLab
Runner."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from vmrunner.cli import exit_codes, output
from vmrunner.cli.context import debugging, over_server, shell_of
from vmrunner.errors import VmrunnerError

if TYPE_CHECKING:
    from vmrunner.api.runner import Runner
    from vmrunner.api.sandbox import Sandbox
    from vmrunner.integrations.gitlab.executor import GitlabExecutor
    from vmrunner.model import StreamName

app = typer.Typer(
    help="Run jobs of GitLab Runner, a VM each (its custom executor).",
    no_args_is_help=True,
)

#: Exit codes where GitLab Runner does not say which.
_BUILD_FAILED: Final = 1
_SYSTEM_FAILED: Final = 2


@app.command()
def config(context: typer.Context) -> int:
    """Tell GitLab Runner where builds are, as JSON."""
    del context
    from vmrunner.integrations.gitlab import executor

    return _guarded(lambda: output.print_out(json.dumps(executor.config())))


@app.command()
def prepare(context: typer.Context) -> int:
    """Start the job's VM, and wait until it is ready."""

    def work() -> None:
        with _Executor(context) as executor:
            row = executor.prepare(shell_of(context).loaded.settings)
            output.say(f"the job runs in sandbox {row.id}, a VM of its own")

    return _guarded(work)


@app.command()
def run(
    context: typer.Context,
    script: Annotated[Path, typer.Argument(metavar="SCRIPT", help="As GitLab Runner wrote it.")],
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="Its name.")],
) -> int:
    """Run one script of the job in its VM."""
    code = 0

    def work() -> None:
        nonlocal code
        with _Executor(context) as executor:
            code = executor.run(script.read_bytes(), stage, _write, _attended)
        if code and (file := os.environ.get("BUILD_EXIT_CODE_FILE")):
            Path(file).write_text(str(code))

    if failed := _guarded(work):
        return failed
    return _exit_code("BUILD_FAILURE_EXIT_CODE", _BUILD_FAILED) if code else 0


@app.command()
def cleanup(context: typer.Context) -> int:
    """End the job's VM."""

    def work() -> None:
        with _Executor(context) as executor:
            executor.clean_up()

    return _guarded(work)


class _Executor:
    """The executor of the job in this environment."""

    def __init__(self, context: typer.Context) -> None:
        self._shell = shell_of(context)
        self._runner: Runner | None = None

    def __enter__(self) -> GitlabExecutor:
        from vmrunner.api.runner import Runner
        from vmrunner.config import forges
        from vmrunner.integrations.gitlab import job
        from vmrunner.integrations.gitlab.executor import GitlabExecutor

        found = job.read(os.environ)
        job.hide(os.environ)
        settings = forges.gitlab_of(self._shell.loaded.settings)
        remote = over_server()
        self._runner = Runner(engine=None) if remote else Runner(app=self._shell.app, engine=None)
        return GitlabExecutor(self._runner, settings, found)

    def __exit__(self, *_: object) -> None:
        if self._runner is not None:
            self._runner.close()


@contextlib.contextmanager
def _attended(sandbox: Sandbox, command: str) -> Iterator[None]:
    """End the script with us: GitLab runs `after_script` of a job that is cancelled, or whose
    script takes too long, and the VM lives until then. How it ended then is not the job's doing."""
    from vmrunner.cli.command_signals import passed_on

    with passed_on(sandbox, command) as signals:
        yield
    if signals.first is not None:
        raise VmrunnerError(f"the script was ended by {signals.first.name}")


def _guarded(work: Callable[[], object]) -> int:
    """Take whatever of ours goes wrong for GitLab's system failure, which it may try again: never
    for the job's."""
    try:
        work()
    except exit_codes.ExitNow:
        raise
    except Exception as error:  # noqa: BLE001 - any other exit code would be the job's
        with contextlib.suppress(OSError):
            if debugging():
                output.print_trace()
            output.say(f"error: {error}")
        return _exit_code("SYSTEM_FAILURE_EXIT_CODE", _SYSTEM_FAILED)
    return 0


def _exit_code(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else otherwise


def _write(stream: StreamName, data: bytes) -> None:
    """Hand it on as it comes: GitLab masks and stores it."""
    place = sys.stdout.buffer if stream == "stdout" else sys.stderr.buffer
    place.write(data)
    place.flush()
