"""Preparations before the steps: what the VM's image lacks, and the source."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from vmrunner.core.lifecycle import End
from vmrunner.model import RUNSC, EventKind, Reason, Result, Shape
from vmrunner.session.caches import BuildCaches
from vmrunner.session.job import OTHER, AttemptOver, Reporter, SessionJob
from vmrunner.session.ssh import client
from vmrunner.session.ssh.channel_io import PIECE
from vmrunner.session.supervisor_calls import SupervisorCalls

BOOTSTRAP: Final = 1200.0  # seconds that a VM may take to install what its image lacks
PROGRESS: Final = 2.0  # seconds between events while the source goes in

_FAILED: Final = 1


class Preparation:
    """The work before the steps may start. What a connection did not live to see done is done again
    on the next."""

    def __init__(self, job: SessionJob, reporter: Reporter, caches: BuildCaches) -> None:
        self._job = job
        self._reporter = reporter
        self._caches = caches
        self._bootstrapped = not job.build.spec.bootstrap
        self._unpacked = job.source is None
        self._cached = job.build.steps_started or not job.build.spec.caches

    def run(
        self,
        supervisor: SupervisorCalls,
        pulse: Callable[[], float],
        refused: Callable[[client.Completed, str], NoReturn],
    ) -> None:
        """`refused` tells of a supervisor that did not do what it was told. Raises Lost, Over."""
        if not (self._bootstrapped and self._unpacked and self._cached):
            self._reporter.busy()
        if not self._bootstrapped:
            done = supervisor.ask("status", pulse=self._patient(pulse))
            if done.exit_code == _FAILED:
                raise _not_booted(done.complaint)
            if done.exit_code:
                refused(done, "bootstrap")
            self._reporter.event(EventKind.BOOTSTRAPPED)
            self._bootstrapped = True
        if not self._unpacked:
            gzip = ["--gzip"] if self._job.is_remote else []
            done = supervisor.ask(
                "unpack",
                *gzip,
                *self._container(),
                stdin=self._source(pack=bool(gzip)),
                pulse=pulse,
            )
            if done.exit_code not in (0, OTHER):  # other: the steps have started there already
                refused(done, "source")
            self._unpacked = True
        if not self._cached:
            self._caches.send(supervisor, pulse)
            self._cached = True

    def _container(self) -> list[str]:
        """Arguments for the container that the VM may make while the source comes in."""
        spec = self._job.build.spec
        if spec.docker or spec.privileged or spec.runtime == RUNSC:
            return []
        shape = Shape(container=spec.container, runtime=spec.runtime, log_bytes=self._job.log_bytes)
        ahead = self._job.box.ahead(shape, spec.network)
        return [] if ahead is None else [json.dumps(ahead)]

    def _patient(self, pulse: Callable[[], float]) -> Callable[[], float]:
        """A pulse that raises once the VM should long have been bootstrapped."""
        until = time.monotonic() + BOOTSTRAP

        def patient() -> float:
            remaining = until - time.monotonic()
            if remaining <= 0:
                raise _not_booted(f"the VM was not bootstrapped within {BOOTSTRAP:.0f} s")
            return min(pulse(), remaining)

        return patient

    def _source(self, *, pack: bool) -> Iterator[bytes]:
        """The tar in pieces, packed where the way is longer than the packing takes."""
        assert self._job.source is not None
        total = self._job.source.stat().st_size
        packer = zlib.compressobj(1, wbits=31) if pack else None
        sent, reported_at = 0, time.monotonic()
        with self._job.source.open("rb") as file:
            while data := file.read(PIECE):
                sent += len(data)
                yield packer.compress(data) if packer else data
                if time.monotonic() - reported_at >= PROGRESS:
                    reported_at = time.monotonic()
                    self._reporter.event(EventKind.SOURCE, sent=sent, total=total)
        if packer:
            yield packer.flush()
        self._reporter.event(EventKind.SOURCE, sent=sent, total=total)


def _not_booted(message: str) -> AttemptOver:
    return AttemptOver(
        End(result=Result.ERROR, reason=Reason.BOOT_FAILED, message=message, lost=True)
    )
