"""Submission of a build to a server, in the same four steps as to a ledger at hand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vmrunner.config.build_request import BuildRequest, SandboxRequest
from vmrunner.config.placed_faults import together
from vmrunner.errors import ConfigError
from vmrunner.lib.file_bytes import pieces_of
from vmrunner.services import cache_keys, sources
from vmrunner.services.client import HttpClient, decoding
from vmrunner.services.requests import CheckedRequest, placed_error
from vmrunner.services.submit import AdmittedBuild, PackedBuild

if TYPE_CHECKING:
    from vmrunner.images import Progress
    from vmrunner.model import BuildRecord, Process, Step

_PIECE: Final = 1 << 18
#: Of a source, packed; the server has a limit of its own.
SOURCE_BYTES: Final = 64 << 30
#: Of a source that was not uploaded yet, for a dry run: it is never looked up.
_SOME: Final = "sha256:" + "0" * 64


class RemoteSubmitter:
    """`keep` is told of builds that end unless their lease is renewed."""

    def __init__(self, *, client: HttpClient, keep: Callable[[str], None]) -> None:
        self._client = client
        self._keep = keep
        self._request: BuildRequest | None = None

    def check(self, request: BuildRequest) -> CheckedRequest:
        """Check what is of this machine, and let the server check the rest. Raises ConfigError."""
        faults = list(request.faults)
        source = request.source
        if source is not None:
            try:
                sources.refuse_url(source)
                if not source.startswith(sources.GIT):
                    source = str(Path(source).expanduser().absolute())
                sources.check(source)
            except ConfigError as error:
                faults.append(placed_error(error, request.locations))
        try:
            caches = cache_keys.named(request.caches, source)
            request = request.model_copy(update={"caches": caches})
        except ConfigError as error:
            faults.append(placed_error(error, request.locations))
        if faults:
            raise together(faults)
        self._request = request
        body = _body(request)
        if source is not None:
            body |= {"source": _SOME, "source_name": sources.shown(source)}
        try:
            answer = self._client.post(_path(request), body, dry_run=True)
        except ConfigError as error:
            raise together(
                placed_error(fault, request.locations) for fault in (error, *error.more)
            ) from None
        return CheckedRequest(
            spec=decoding.spec(answer["items"][0]),
            secrets=dict(request.secrets),
            source=source,
            warnings=tuple(answer.get("warnings", ())),
            host_uses=request.host_uses,
            locations=request.locations,
        )

    def admit(self, checked: CheckedRequest, *, warn: Callable[[str], object]) -> AdmittedBuild:
        """Tell the warnings. The server was asked already."""
        for text in checked.warnings:
            warn(text)
        return AdmittedBuild(checked=checked, image=None)

    def pack(self, admitted: AdmittedBuild, *, on_image: Callable[[Progress], None]) -> PackedBuild:
        """Pack the source here, and upload it."""
        del on_image
        checked, digest, total = admitted.checked, None, None
        if checked.source is not None:
            with tempfile.TemporaryDirectory(prefix="vmrunner-") as name, checked.placed():
                path = Path(name, "source.tar")
                total = sources.spool(checked.source, path, most=SOURCE_BYTES)
                stored = self._client.put("/sources", partial(pieces_of, path, _PIECE))
                digest = stored["digest"]
        return PackedBuild(checked=checked, digest=digest, total=total)

    def queue(
        self, packed: PackedBuild, *, submitter: Process | None = None
    ) -> tuple[BuildRecord, bool]:
        """The build, and whether it is a new one. With a `submitter` it ends unless this process
        says again and again that it is there."""
        assert self._request is not None, "check comes first"
        body = _body(self._request) | {"foreground": submitter is not None}
        if packed.checked.source is not None:
            shown = sources.shown(packed.checked.source)
            body |= {"source": packed.digest, "source_name": shown}
        answer = self._client.post(_path(self._request), body)
        row = decoding.build(answer["items"][0])
        new = bool(answer.get("new"))
        if submitter is not None and new:
            self._keep(row.id)
        return row, new


def _path(request: BuildRequest) -> str:
    return "/sandboxes" if isinstance(request, SandboxRequest) else "/builds"


def _body(request: BuildRequest) -> dict[str, Any]:
    """The request as JSON. Its source is named once it is uploaded."""
    values = {
        name: value
        for name, value in request
        if value is not None and name not in ("source", "steps", "secrets", "artifacts", "caches")
    }
    if request.network is not None:
        values["network"] = request.network.value
    values["secrets"] = {name: _text(name, value) for name, value in request.secrets.items()}
    if isinstance(request, SandboxRequest):
        return values
    return {
        **values,
        "steps": [_step(item) for item in request.steps or ()],
        "artifacts": [{"path": item.glob, "always": item.always} for item in request.artifacts],
        "caches": [asdict(item) for item in request.caches],
    }


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ConfigError(
            f"secret: the value of {name!r} is not UTF-8, and goes over HTTP as text",
            hint="encode it, with base64 for example",
        ) from None


def _step(step: Step) -> dict[str, Any]:
    document: dict[str, Any] = (
        {"run": step.run} if step.run is not None else {"argv": list(step.argv)}
    )
    if step.name:
        document["name"] = step.name
    if step.timeout is not None:
        document["timeout"] = step.timeout
    if step.env:
        document["env"] = dict(step.env)
    return document
