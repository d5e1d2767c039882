"""Operations: changes under way, and their outcomes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from vmrunner_localclouds.azure import timestamps
from vmrunner_localclouds.azure.api_error import ArmRefusal, Json, error_of
from vmrunner_localclouds.azure.faults import FailedLater
from vmrunner_localclouds.azure.requests import AzureRequest

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure

_ASYNC: Final = "Azure-AsyncOperation"


class ArmAnswer(NamedTuple):
    """An answer before it is written. Without a body there is none."""

    status: int
    body: Json | None = None
    headers: Mapping[str, str] = MappingProxyType({})


@dataclass(slots=True, eq=False)
class ArmOperation:
    """One operation. `result`: what its `Location` shows when it ends well."""

    cloud: LocalAzure
    provider: str
    location: str
    name: str = field(default_factory=lambda: str(uuid.uuid4()))
    started: float = 0.0
    ended: float | None = None
    broken: FailedLater | None = None

    def finish(self, broken: FailedLater | None = None) -> None:
        """End, in success or in this error."""
        if self.ended is None:
            self.ended, self.broken = self.cloud.now(), broken

    @property
    def shown(self) -> Json:
        if self.ended is None:
            status: Json = {"status": "InProgress"}
        elif self.broken is None:
            status = {"status": "Succeeded", "endTime": timestamps.written(self.ended)}
        else:
            error = error_of(self.broken.code, self.broken.message)
            ended = timestamps.written(self.ended)
            status = {"status": "Failed", "endTime": ended, "error": error}
        return {"name": self.name, "startTime": timestamps.written(self.started), **status}


def begin(cloud: LocalAzure, provider: str, location: str) -> ArmOperation:
    """A new operation, which runs until `finish`."""
    operation = ArmOperation(cloud, provider, location, started=cloud.now())
    cloud.operations[operation.name] = operation
    return operation


def headers(operation: ArmOperation, request: AzureRequest) -> dict[str, str]:
    """The headers of an answer that says: it has begun. Their URLs are of this server."""
    cloud = operation.cloud
    version = request.query.get("api-version", "")
    url = (
        f"{cloud.url}/subscriptions/{cloud.subscription}/providers/{operation.provider}"
        f"/locations/{operation.location}/operations/{operation.name}"
    )
    fields = {_ASYNC: f"{url}?api-version={version}"}
    if request.verb != "PUT":
        fields["Location"] = f"{url}?monitor=true&api-version={version}"
    return fields | retry(cloud)


def retry(cloud: LocalAzure) -> dict[str, str]:
    return {"Retry-After": str(cloud.retry_after)} if cloud.retry_after else {}


def run(
    cloud: LocalAzure,
    request: AzureRequest,
    location: str,
    *,
    status: int = 202,
    body: Json | None = None,
    effect: Callable[[], object] = lambda: None,
    broken: FailedLater | None = None,
) -> ArmAnswer:
    """Start an operation that ends `operation_seconds` later, in `effect` or `broken`."""

    def end() -> None:
        if broken is None:
            effect()
        operation.finish(broken)

    operation = begin(cloud, request.path.provider, location)
    first = copied(body)
    cloud.later(cloud.operation_seconds, end)
    return ArmAnswer(status, first, headers(operation, request))


def follow(
    cloud: LocalAzure,
    request: AzureRequest,
    location: str,
    work: Callable[[Callable[[], None]], object],
) -> ArmAnswer:
    """Start an operation that ends when `work` calls its argument."""
    operation = begin(cloud, request.path.provider, location)
    work(operation.finish)
    return ArmAnswer(202, None, headers(operation, request))


def copied(body: Json | None) -> Json | None:
    """A copy as of now: the resource goes on changing."""
    if body is None:
        return None
    copy: Json = json.loads(json.dumps(body))
    return copy


# --- requests about them -------------------------------------------------------------------------


def pause(cloud: LocalAzure, request: AzureRequest) -> None:
    """Advance a virtual clock until the operation is done: without the lock, before the answer.
    A client waits itself, but on a clock of its own."""
    operation = cloud.operations.get(request.path.name)
    if cloud.obeys and operation is not None and operation.ended is None:
        wait = cloud.next_due() - cloud.now()
        cloud.sleep(max(0.0, min(wait, cloud.poll_seconds)))


def get(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    operation = cloud.operations.get(request.path.name)
    if operation is None:
        text = f"The entity '{request.path.name}' was not found."
        raise ArmRefusal(404, "NotFound", text)
    running = operation.ended is None
    if request.flag("monitor"):
        again = headers(operation, request) if running else {}
        return ArmAnswer(202 if running else 200, None, again)
    return ArmAnswer(200, operation.shown, retry(cloud) if running else {})
