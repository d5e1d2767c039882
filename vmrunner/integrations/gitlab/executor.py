"""The four programs of a custom executor, over a sandbox that belongs to the ledger.

Each is a process of its own, and may be killed at any time: the sandbox is found again by its
labels, made once by its key, and ends by its deadline if GitLab never asks for its end.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from vmrunner.api.sandbox import Sandbox, command_order
from vmrunner.config import registry_auth
from vmrunner.config.build_request import SandboxRequest
from vmrunner.config.field_checks import SECRET_BYTES
from vmrunner.errors import SandboxOver
from vmrunner.lib import units
from vmrunner.lib.secret_patterns import SHORTEST
from vmrunner.model import BuildRecord, Limits, StreamName

if TYPE_CHECKING:
    from vmrunner.api.runner import Runner
    from vmrunner.config.forges import GitlabSettings
    from vmrunner.config.settings import Settings
    from vmrunner.integrations.gitlab.job import GitlabJob

log = logging.getLogger("vmrunner")

#: Labels of a job's sandbox.
SERVER: Final = "gitlab.server"
JOB: Final = "gitlab.job"
PROJECT: Final = "gitlab.project"
#: What else could be guessed, and a sandbox of another user wait for the job's scripts.
PROOF: Final = "gitlab.proof"
#: Where a job's repository and cache are, in the container.
BUILDS: Final = "/work/builds"
CACHE: Final = "/work/cache"
ROOM: Final = 15 * 60.0  # seconds of a VM beside its job's timeout: stages after the script
#: GitLab's scripts are for bash, and do with sh where there is none. Both streams are one, so that
#: a log has them in order.
_SHELL: Final = 'exec 2>&1; if command -v bash >/dev/null; then exec bash "$0"; fi; exec sh "$0"'


def config() -> dict[str, Any]:
    """The document that GitLab Runner asks for: driver, version and directories."""
    return {
        "builds_dir": BUILDS,
        "cache_dir": CACHE,
        "builds_dir_is_shared": False,
        "driver": {"name": "vmrunner", "version": f"v{version('vmrunner')}"},
    }


def _unattended(_sandbox: Sandbox, _command: str) -> AbstractContextManager[object]:
    return nullcontext()


class GitlabExecutor:
    """One job's sandbox."""

    def __init__(self, runner: Runner, settings: GitlabSettings, job: GitlabJob) -> None:
        self._runner = runner
        self._settings = settings
        self._job = job
        self._labels = {SERVER: job.server, JOB: job.id}
        if job.proof:
            self._labels[PROOF] = job.proof

    def prepare(self, limits: Settings) -> BuildRecord:
        """Start it, and wait until it is ready. Raises BuildLost and the like when it cannot be
        had: a new try gets a new one."""
        values = self._settings.build.values()
        container = self._job.image or values.get("container")
        logins = self._job.logins if self._job.image else ()
        login = registry_auth.login(self._job.image, "DOCKER_AUTH_CONFIG", *logins)
        fields: dict[str, Any] = {
            **values,
            **login,
            "network": values.get("network") or limits.defaults.network,
            "container": container,
            "ttl": self._ttl(limits),
            "labels": {**self._settings.build.labels, **self._labels, PROJECT: self._job.project},
            "idempotency_key": ":".join(("gitlab", *self._labels.values())),
            "secrets": {**login.get("secrets", {}), **self._masked()},
        }
        request = SandboxRequest(**fields)
        return self._runner.enter_sandbox(request, owned=False, timeout=None).row

    def _masked(self) -> dict[str, bytes]:
        """Values that our own log must not show either, as secrets of the sandbox."""
        values = [value.encode() for value in self._job.masked]
        fit = [value for value in values if SHORTEST <= len(value.strip()) <= SECRET_BYTES]
        return {
            f"GITLAB_MASKED_{number}": value
            for number, value in enumerate(fit)
            if b"\0" not in value
        }

    def _ttl(self, limits: Settings) -> float:
        """Seconds that it lives: as configured, or as long as its job may take and a while, at
        most as long as any VM may."""
        longest = limits.limits.max_ttl - Limits().booting
        if (ttl := self._settings.build.ttl) is not None:
            return ttl
        wanted = (self._job.timeout or limits.defaults.timeout) + ROOM
        if wanted > longest:
            log.warning(
                "the VM lives for %s, and the job may take %s: limits.max_ttl is its end",
                units.exact(longest),
                units.exact(wanted - ROOM),
            )
        return min(wanted, longest)

    def run(
        self,
        script: bytes,
        stage: str,
        on_output: Callable[[StreamName, bytes], object],
        attended: Callable[[Sandbox, str], AbstractContextManager[object]] = _unattended,
    ) -> int:
        """Run one script of the job; its exit code. `attended` is entered with the sandbox and the
        command's id while it runs. Raises SandboxOver when there is no sandbox, BuildLost when its
        VM died."""
        live = self._live()
        if not live:
            raise SandboxOver(f"job {self._job.id} has no sandbox any more")
        path = f"/work/.gitlab/{stage}-{secrets.token_hex(4)}"
        sandbox = Sandbox.connect(live[0].id, runner=self._runner)
        sandbox.files.write(path, script)
        order = command_order(["sh", "-c", _SHELL, path], env={})
        with attended(sandbox, order.id):
            return sandbox.follow(replace(order, title=f"stage {stage}"), on_output).exit_code

    def clean_up(self) -> None:
        """End it, if it is there."""
        rows = self._live()
        for row in rows:
            self._runner.service.cancel(row.id, why="its job at GitLab is over")
        self._runner.service.ensure_ended(rows)

    def _live(self) -> list[BuildRecord]:
        return list(self._runner.service.ledger.builds.list(active=True, labels=self._labels))
