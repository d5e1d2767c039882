"""Protocols of a service and its parts, for which it does not matter whether the service is in this
process (`api/local_service.py`) or a server's (`api/remote_service.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, Self

from vmrunner.model import Reason

if TYPE_CHECKING:
    import os
    import socket
    from pathlib import Path

    from vmrunner.config.build_request import BuildRequest
    from vmrunner.core.audit_rules import Survivor
    from vmrunner.core.cost_report import CostLine
    from vmrunner.images import Progress
    from vmrunner.ledger import Ledger
    from vmrunner.model import (
        BuildRecord,
        CommandEnd,
        CommandOrder,
        CommandSummary,
        FileEntry,
        Instance,
        Process,
        Start,
        StoredCache,
    )
    from vmrunner.reaper.report import Report
    from vmrunner.services.artifacts import Artifact
    from vmrunner.services.client import RemoteLedger
    from vmrunner.services.command_output import OnOutput
    from vmrunner.services.destroy import DestroyedVm
    from vmrunner.services.document_types import TestsDocument
    from vmrunner.services.fleet import Fleet
    from vmrunner.services.logs import ReadsLog
    from vmrunner.services.pools import PoolStatus
    from vmrunner.services.requests import CheckedRequest
    from vmrunner.services.submit import AdmittedBuild, PackedBuild


class SubmissionSteps(Protocol):
    """The four steps of a submission, one after the other: each takes what the one before gave,
    and belongs to the same submission."""

    def check(self, request: BuildRequest) -> CheckedRequest:
        """Check all that needs no provider. Raises ConfigError."""

    def admit(self, checked: CheckedRequest, *, warn: Callable[[str], object]) -> AdmittedBuild:
        """Ask ledger and provider. Raises ConfigError, NotAllowed, or the provider's refusal."""

    def pack(self, admitted: AdmittedBuild, *, on_image: Callable[[Progress], None]) -> PackedBuild:
        """Pack and store the source, and make the VM's image where it is missing."""

    def queue(
        self, packed: PackedBuild, *, submitter: Process | None = None
    ) -> tuple[BuildRecord, bool]:
        """Queue it. The build, and whether it is a new one. With a `submitter` it ends with that
        process."""


class ServingHost(Protocol):
    """The part of a process that sees to it that an engine serves the builds it waits for."""

    @property
    def own(self) -> str | None:
        """The id of an engine in this process, or None."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def ensure(self, provider: str, *, staying: bool = False) -> None:
        """See to it that an engine serves this provider. `staying`: by one that outlives us."""

    def wake(self) -> None:
        """Let the engines look at once."""

    def waiting(self, build: str) -> str:
        """The reason why a build is still queued, or ""."""

    def close(self) -> None:
        """End an engine of this process, or the signs of life for a server."""


class BuildArtifacts(Protocol):
    """The artifacts of one build."""

    def __iter__(self) -> Iterator[Artifact]: ...

    def __len__(self) -> int: ...

    def ls(self) -> list[Artifact]:
        """All files, by path. Raises NotFound, StoreError."""

    def known(self) -> list[Artifact]:
        """The same at once, or none while they cannot be had."""

    def download(
        self,
        dest: str | os.PathLike[str],
        *paths: str,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> list[Path]:
        """Copy them, or those that `paths` name, below `dest`. The path of each copy."""


class OpenedTerminal(Protocol):
    """A command at a terminal, here or over a server."""

    @property
    def exit_code(self) -> int | None:
        """Return its exit code, once `receive` has told its end; None: it was closed before."""

    @property
    def is_open(self) -> bool:
        """True if nothing was heard of its connection's end."""

    def receive(self) -> bytes | None:
        """Bytes that it shows; b"" at its end; None when there were none for a while."""

    def send(self, data: bytes) -> bool:
        """Type it; returns once all was sent. False: the command has ended."""

    def resize(self, columns: int, rows: int) -> None:
        """Tell it the terminal's new size."""

    def close(self) -> None:
        """Hang up: what runs at it is told, as when a window is closed."""


class SandboxAccess(Protocol):
    """Commands and files of one sandbox. Each call raises SandboxOver, NotFound, Conflict."""

    def run(self, order: CommandOrder, on_output: OnOutput) -> CommandEnd:
        """Start a command unless its id was started, and follow it to its end."""

    def start(self, order: CommandOrder) -> None:
        """Start a command unless its id was started."""

    def signal(self, command: str, number: int) -> None:
        """Send a signal to all processes of a command."""

    def send_input(self, command: str, offset: int, data: bytes, *, last: bool = False) -> None:
        """Send bytes of its stdin, from that offset on. `last`: nothing follows."""

    def commands(self) -> list[CommandSummary]:
        """The commands that were started, the oldest first."""

    def read_file(self, path: str, on_bytes: Callable[[bytes], object]) -> None:
        """Hand on the bytes of a file."""

    def write_file(self, path: str, data: Iterable[bytes]) -> None:
        """Write a file, whole or not at all, and the directories above it."""

    def list_files(self, path: str) -> list[FileEntry]:
        """Entries of a directory, by name."""

    def stat_file(self, path: str) -> FileEntry:
        """The entry at a path: kind, size, mode. A link is not followed."""

    def remove_file(self, path: str) -> None:
        """Remove a file, or a directory with all in it."""

    def make_dir(self, path: str) -> None:
        """Make a directory, and those above it. One that is there stays."""

    def pack_files(self, path: str, on_bytes: Callable[[bytes], object]) -> None:
        """Hand on a tar of a file, or of a directory's content."""

    def unpack_files(self, path: str, tar: Iterable[bytes]) -> None:
        """Unpack a tar below a directory, which is made where it is missing."""

    def forward(self, port: int, local: socket.socket) -> None:
        """Let a port of the sandbox speak with `local`, until either has ended."""

    def terminal(self, order: CommandOrder, columns: int, rows: int) -> OpenedTerminal:
        """Start a command at a terminal. Raises NotFound where there is no such command."""

    def close(self) -> None:
        """Close the connections to it."""


class Service(Protocol):
    """The use cases of an installation."""

    @property
    def follow_interval(self) -> float:
        """Seconds between two looks at a build that is followed."""

    @property
    def ledger(self) -> Ledger | RemoteLedger: ...

    @property
    def place(self) -> str:
        """The URL of its ledger or its server, without a password."""

    @property
    def submission(self) -> SubmissionSteps:
        """A new submission."""

    @property
    def source_bytes(self) -> int:
        """The most bytes of a packed source."""

    @property
    def paused(self) -> bool:
        """True if nothing is launched now."""

    def host(self, kind: str | None) -> ServingHost:
        """The host that serves builds while this process waits for them."""

    def ensure_served(self, *providers: str) -> None:
        """See to it that an engine which outlives this process serves these providers."""

    # --- builds ---

    def waiting(self, rows: Iterable[BuildRecord]) -> dict[str, str]:
        """Reasons why those of them that are queued wait, by build id."""

    def starts(self, rows: Iterable[BuildRecord]) -> dict[str, Start]:
        """Starts of their VMs (fresh, pool, template), by the VM's id."""

    def costed(self, rows: Sequence[BuildRecord]) -> list[BuildRecord]:
        """The same rows with the cost of each until now."""

    def named(self, rows: Iterable[BuildRecord]) -> list[BuildRecord]:
        """The same rows with the names of the tokens that submitted them."""

    def tests(self, row: BuildRecord) -> TestsDocument | None:
        """Results of the tests in its reports; None: it brought none, or they cannot be had."""

    def artifacts(self, row: BuildRecord) -> BuildArtifacts:
        """Files that it brought back."""

    def log(self, build: str) -> ReadsLog:
        """The build's log."""

    def sandbox(self, build: str) -> SandboxAccess:
        """A client that runs commands in a sandbox."""

    def cancel(self, build: str, *, reason: Reason = Reason.USER, why: str = "") -> BuildRecord:
        """Cancel a build: it ends, and its VM is destroyed."""

    def remove(self, row: BuildRecord) -> None:
        """Remove its log and its artifacts. Raises Conflict when it has not ended."""

    def caches(self) -> list[StoredCache]:
        """Caches that builds stored for later ones."""

    def remove_cache(self, name: str) -> str:
        """Remove a cache, by the beginning of its id; return that. Raises NotFound, Conflict."""

    def ensure_ended(self, rows: Iterable[BuildRecord]) -> None:
        """See to it that an engine ends builds that were cancelled."""

    def extend(self, row: BuildRecord, seconds: float) -> BuildRecord:
        """Keep a held build's VM longer, never past its deadline."""

    # --- the installation ---

    def time_of(self, row: Instance) -> float:
        """The time by the clock of a VM's deadline, in seconds since the epoch."""

    def fleet(self, *, gone: bool, limit: int) -> Fleet:
        """The VMs beside the clouds' own lists of now. Raises NotAllowed for a token that does
        not see all."""

    def destroy(self, row: Instance) -> DestroyedVm:
        """End a VM now, and cancel its build."""

    def ensure_ends_are_written(self) -> None:
        """See to it that an engine writes the ends of builds whose VMs were destroyed."""

    def drain(self, *, off: bool) -> None:
        """Stop launching, everywhere; or launch again."""

    def reap(
        self, *, provider: str | None = None, dry_run: bool = False, orphans: bool = False
    ) -> Report:
        """One pass of the reaper, and its report."""

    def audit(
        self,
        *,
        provider: str | None = None,
        tag: tuple[str, str] | None = None,
        older_than: float | None = None,
    ) -> list[Survivor]:
        """Machines that are alive and should not be."""

    def costs(self, by: str, since: float) -> list[CostLine]:
        """Costs of the last `since` seconds."""

    def pools(self) -> list[PoolStatus]:
        """Each pool: the VMs that it wants, has and served, and their cost."""

    def pool(self, name: str) -> PoolStatus:
        """One pool. Raises NotFound."""

    def resize_pool(self, name: str, size: int) -> None:
        """Give a pool another size, until the configuration changes."""

    def drain_pool(self, name: str) -> None:
        """End a pool's VMs that wait."""

    def close(self, host: ServingHost | None = None, unended: Iterable[str] = ()) -> None:
        """Close what was opened, with an engine of this process; a background engine serves the
        `unended` builds."""
