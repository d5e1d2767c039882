"""A service elsewhere: the same use cases, asked of a server."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from vmrunner.errors import ConfigError, NotUploaded
from vmrunner.model import Reason
from vmrunner.model.caches import MOST_CACHES
from vmrunner.services.client import HttpClient, RemoteLedger, decoding
from vmrunner.services.client.host import RemoteHost
from vmrunner.services.client.http_client import segment
from vmrunner.services.client.ledger import RemoteLog
from vmrunner.services.destroy import DestroyedVm, DestroyResult

if TYPE_CHECKING:
    from vmrunner.api.remote_sandbox import RemoteSandbox
    from vmrunner.api.remote_submission import RemoteSubmitter
    from vmrunner.core.audit_rules import Survivor
    from vmrunner.core.cost_report import CostLine
    from vmrunner.model import BuildRecord, Instance, Start, StoredCache
    from vmrunner.reaper.report import Report
    from vmrunner.services.artifacts import Artifact
    from vmrunner.services.document_types import TestsDocument
    from vmrunner.services.fleet import Fleet
    from vmrunner.services.pools import PoolStatus
    from vmrunner.services.protocols import ServingHost


@dataclass(frozen=True, slots=True)
class RemoteArtifacts:
    """The artifacts of one build, on the server."""

    client: HttpClient
    build: BuildRecord

    def __iter__(self) -> Iterator[Artifact]:
        return iter(self.ls())

    def __len__(self) -> int:
        return len(self.ls())

    def ls(self) -> list[Artifact]:
        """All files, by path."""
        from vmrunner.services.artifacts import when_uploaded

        return when_uploaded(self._listed)

    def known(self) -> list[Artifact]:
        """The same at once, or none while they are not in the server's store."""
        try:
            return self._listed()
        except NotUploaded:
            return []

    def _listed(self) -> list[Artifact]:
        from vmrunner.services.artifacts import Artifact

        found = self.client.listed(f"/builds/{segment(self.build.id)}/artifacts")
        return [Artifact(entry["path"], entry["size"]) for entry in found]

    def download(
        self,
        dest: str | os.PathLike[str],
        *paths: str,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> list[Path]:
        """Copy them below `dest`, as `Artifacts.download` does."""
        from vmrunner.lib.archive import files
        from vmrunner.lib.archive.tar_reader import ByteSource
        from vmrunner.services.artifacts import Artifacts
        from vmrunner.store.build_artifacts import LocalArtifacts

        self.ls()  # it waits until they are there
        globs = tuple(rule.glob for rule in self.build.spec.artifacts)
        url = f"/builds/{segment(self.build.id)}/artifacts"
        with tempfile.TemporaryDirectory(prefix="vmrunner-") as name:
            place = Path(name, self.build.id)
            with self.client.stream(url, "application/x-tar") as parts:
                source: ByteSource = _Reader(_counted(parts, on_bytes))
                files.extract(source, place, files.ArchiveCaps(unpacked=1 << 40))
            found = Artifacts(lambda: LocalArtifacts(place), self.build.id, globs)
            return found.download(dest, *paths)


def _counted(parts: Iterator[bytes], on_bytes: Callable[[int], None]) -> Iterator[bytes]:
    for part in parts:
        on_bytes(len(part))
        yield part


class _Reader:
    """Parts of bytes as a file."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        if not self._rest:
            self._rest = next(self._parts, b"")
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


class RemoteService:
    """`Service` of a server. `url` and `token` as in VMRUNNER_SERVER and VMRUNNER_TOKEN."""

    follow_interval: Final = 0.3

    def __init__(self, url: str, token: str) -> None:
        self.client = HttpClient(url, token)
        self.ledger = RemoteLedger(self.client)
        self._host = RemoteHost(self.client, self.ledger.builds)

    @property
    def place(self) -> str:
        """Return the server's URL."""
        return self.client.url

    @property
    def submission(self) -> RemoteSubmitter:
        from vmrunner.api.remote_submission import RemoteSubmitter

        return RemoteSubmitter(client=self.client, keep=self._host.keep)

    @property
    def source_bytes(self) -> int:
        from vmrunner.api.remote_submission import SOURCE_BYTES

        return SOURCE_BYTES

    @property
    def paused(self) -> bool:
        return bool(self.client.get("/readyz")["draining"])

    def host(self, kind: str | None) -> RemoteHost:
        del kind
        return self._host

    def ensure_served(self, *providers: str) -> None:
        """Do nothing: the server does."""

    # --- builds ---

    def waiting(self, rows: Iterable[BuildRecord]) -> dict[str, str]:
        """Reasons why those of them that are queued wait, from the server's last answer."""
        reasons = self.ledger.builds.waiting
        return {row.id: reasons[row.id] for row in rows if row.id in reasons}

    def starts(self, rows: Iterable[BuildRecord]) -> dict[str, Start]:
        starts = self.ledger.builds.starts
        return {row.instance: starts[row.instance] for row in rows if row.instance in starts}

    def costed(self, rows: Sequence[BuildRecord]) -> list[BuildRecord]:
        """Return them with what each has cost until now: so the server sent them."""
        return list(rows)

    def named(self, rows: Iterable[BuildRecord]) -> list[BuildRecord]:
        """Return them with the names of who submitted them: so the server sent them."""
        return list(rows)

    def tests(self, row: BuildRecord) -> TestsDocument | None:
        found = self.client.listed(f"/builds/{segment(row.id)}/tests")
        return cast("TestsDocument", found[0]) if found else None

    def artifacts(self, row: BuildRecord) -> RemoteArtifacts:
        return RemoteArtifacts(self.client, row)

    def log(self, build: str) -> RemoteLog:
        return RemoteLog(self.ledger.logs, build)

    def sandbox(self, build: str) -> RemoteSandbox:
        from vmrunner.api.remote_sandbox import RemoteSandbox

        return RemoteSandbox(self.client, build)

    def cancel(self, build: str, *, reason: Reason = Reason.USER, why: str = "") -> BuildRecord:
        del why
        return self.ledger.builds.request_cancel(build, reason, time.time())

    def remove(self, row: BuildRecord) -> None:
        self.client.post(f"/builds/{segment(row.id)}/remove")

    def caches(self) -> list[StoredCache]:
        return list(map(decoding.cache, self.client.listed("/caches", limit=MOST_CACHES)))

    def remove_cache(self, name: str) -> str:
        (removed,) = self.client.post(f"/caches/{segment(name)}/remove")["items"]
        return decoding.cache(removed).id

    def ensure_ended(self, rows: Iterable[BuildRecord]) -> None:
        """Do nothing: the server does."""

    def extend(self, row: BuildRecord, seconds: float) -> BuildRecord:
        return self.ledger.builds.extend(row.id, seconds, time.time())

    # --- the house ---

    def time_of(self, row: Instance) -> float:
        """Return the time here: the server tells no other."""
        del row
        return time.time()

    def fleet(self, *, gone: bool, limit: int) -> Fleet:
        from vmrunner.services.client.reports import fleet

        state = None if gone else "active"
        return fleet(self.client.get("/instances", cloud=True, state=state, limit=min(limit, 1000)))

    def destroy(self, row: Instance) -> DestroyedVm:
        answer = self.client.post(f"/instances/{segment(row.id)}/destroy")
        return DestroyedVm(DestroyResult(answer["result"]), answer["error"] or "")

    def ensure_ends_are_written(self) -> None:
        """Do nothing: the server does."""

    def drain(self, *, off: bool) -> None:
        self.client.post("/drain", {"off": off})

    def reap(
        self, *, provider: str | None = None, dry_run: bool = False, orphans: bool = False
    ) -> Report:
        from vmrunner.services.client.reports import report

        options = {"provider": provider, "dry_run": dry_run, "orphans": orphans}
        return report(self.client.post("/reap", options))

    def audit(
        self,
        *,
        provider: str | None = None,
        tag: tuple[str, str] | None = None,
        older_than: float | None = None,
    ) -> list[Survivor]:
        from vmrunner.services.client.reports import survivor

        label = None if tag is None else "=".join(tag)
        found = self.client.listed("/audit", provider=provider, tag=label, older_than=older_than)
        return list(map(survivor, found))

    def costs(self, by: str, since: float) -> list[CostLine]:
        from vmrunner.services.client.reports import cost_line

        return list(map(cost_line, self.client.listed("/costs", by=by, since=since)))

    def pools(self) -> list[PoolStatus]:
        from vmrunner.services.client.reports import pool_status

        return list(map(pool_status, self.client.listed("/pools")))

    def pool(self, name: str) -> PoolStatus:
        from vmrunner.services.client.reports import pool_status

        return pool_status(self.client.one(f"/pools/{segment(name)}"))

    def resize_pool(self, name: str, size: int) -> None:
        self.client.post(f"/pools/{segment(name)}/resize", {"size": size})

    def drain_pool(self, name: str) -> None:
        self.client.post(f"/pools/{segment(name)}/drain")

    def close(self, host: ServingHost | None = None, unended: Iterable[str] = ()) -> None:
        """Let go of what was opened; builds in the foreground are not kept any longer."""
        del host, unended
        self._host.close()
        self.client.close()


def from_environment(environ: dict[str, str] | Any) -> RemoteService | None:
    """Return the server that VMRUNNER_SERVER names; None: there is none. Raises ConfigError."""
    url = environ.get("VMRUNNER_SERVER")
    if url is None:
        return None
    if not url.strip():
        raise ConfigError("VMRUNNER_SERVER: empty", hint="a URL, or unset it")
    return RemoteService(url.strip(), environ.get("VMRUNNER_TOKEN", "").strip())
