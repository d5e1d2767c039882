"""The calls that this driver makes, and no others: each waits for its token, tells the time, and
fails in one way. Only here is google-cloud-compute used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import requests
from google.api_core import exceptions as api_errors
from google.auth import exceptions as auth_errors
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1
from google.protobuf.json_format import ParseError
from google.protobuf.message import DecodeError

from vmrunner.errors import BadOrder, Throttled
from vmrunner.lib.token_bucket import Limit
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.clock import CloudClock
from vmrunner.providers.common.rate_limits import Buckets, Quota
from vmrunner.providers.gce import error_codes
from vmrunner.providers.gce.options import GceOptions

Answer = Any  # a protocol buffer, or a message of the SDK's

#: Per project, as Compute Engine documents them (reference: "rate quotas"). It counts the calls in
#: each minute of the clock, 1,500: a burst and what comes back in a minute are together no more.
QUOTAS: Final = {
    "read": Quota(Limit(375, 18.75)),
    "write": Quota(Limit(375, 18.75)),
    "list": Quota(Limit(100, 10)),
}

#: Seconds. What is waited for at the server has its own.
READ: Final = 30.0
#: The header that makes an answer partial.
_FIELDS: Final = "x-goog-fieldmask"
#: So long `wait` may keep an answer back: Google's own is two minutes.
OPERATION_WAIT: Final = 130.0


class GceApi(NamedTuple):
    """One call: the SDK's service and method, and whose limit it counts against. `fields`: all that
    is wanted of the answer, as Google's field masks say it; empty: the whole. `single`: a refusal
    for its rate may be about this one thing, on which an operation goes on, such as a delete."""

    service: str
    method: str
    quota: str
    fields: str = ""
    single: bool = False

    @property
    def action(self) -> str:
        """Return the action as IAM calls what it needs, without its first word:
        instances.insert."""
        words = self.method.removesuffix("_unary").split("_")
        service = self.service[0].lower() + self.service[1:]
        return f"{service}.{words[0]}{''.join(word.capitalize() for word in words[1:])}"


INSERT: Final = GceApi("Instances", "insert_unary", "write")
GET: Final = GceApi("Instances", "get", "read")
#: Asked four times a second, and a whole VM has its user-data with it.
LIST: Final = GceApi(
    "Instances",
    "list",
    "list",
    fields="nextPageToken,items(name,status,statusMessage,creationTimestamp,labels,"
    "networkInterfaces(networkIP,accessConfigs(natIP)))",
)
DELETE: Final = GceApi("Instances", "delete_unary", "write", single=True)
SUSPEND: Final = GceApi("Instances", "suspend_unary", "write")
RESUME: Final = GceApi("Instances", "resume_unary", "write")
UNPROTECT: Final = GceApi("Instances", "set_deletion_protection_unary", "write")
CONSOLE: Final = GceApi("Instances", "get_serial_port_output", "read")
MAY: Final = GceApi("Instances", "test_iam_permissions", "read")
INSTANCES: Final = GceApi("Instances", "aggregated_list", "list")
DISKS: Final = GceApi("Disks", "aggregated_list", "list")
ADDRESSES: Final = GceApi("Addresses", "aggregated_list", "list")
ZONE_INSTANCES: Final = GceApi("Instances", "list", "list")
ZONE_DISKS: Final = GceApi("Disks", "list", "list")
SNAPSHOTS: Final = GceApi("Snapshots", "list", "list")
DELETE_DISK: Final = GceApi("Disks", "delete_unary", "write", single=True)
DELETE_ADDRESS: Final = GceApi("Addresses", "delete_unary", "write")
DELETE_GLOBAL_ADDRESS: Final = GceApi("GlobalAddresses", "delete_unary", "write")
DELETE_SNAPSHOT: Final = GceApi("Snapshots", "delete_unary", "write")
#: The state of an operation, in what `pb` gives.
DONE: Final = compute_v1.Operation.Status.DONE
WAIT_FOR: Final = GceApi("ZoneOperations", "wait", "read")
OPERATIONS: Final = GceApi(
    "ZoneOperations",
    "list",
    "list",
    fields="nextPageToken,items(operationType,targetLink,status,insertTime,error)",
)
PROJECT: Final = GceApi("Projects", "get", "read")
REGION: Final = GceApi("Regions", "get", "read")
IMAGE: Final = GceApi("Images", "get", "read")
FAMILY: Final = GceApi("Images", "get_from_family", "read")
IMAGES: Final = GceApi("Images", "list", "list")
PATCH_IMAGE: Final = GceApi("Images", "patch_unary", "write")
DELETE_IMAGE: Final = GceApi("Images", "delete_unary", "write")
WAIT_GLOBAL: Final = GceApi("GlobalOperations", "wait", "read")
TYPE: Final = GceApi("MachineTypes", "get", "read")
SUBNETS: Final = GceApi("Subnetworks", "list", "list")
FIREWALLS: Final = GceApi("Firewalls", "list", "list")


class GceClient:
    """The SDK under one configuration. Thread-safe; nothing is retried here."""

    def __init__(
        self, options: GceOptions, clock: CloudClock, *, buckets: Buckets | None = None
    ) -> None:
        self._options = options
        self._clock = clock
        self._buckets = buckets or Buckets(QUOTAS)
        self._lock = threading.RLock()
        self._clients: dict[str, Any] = {}
        self._masks = True  # may an answer be asked for in part?

    def __call__(
        self,
        api: GceApi,
        *,
        where: str = "",
        items: int = 1,
        patience: float = 30.0,
        project: str | None = None,
        timeout: float = READ,
        **params: Any,
    ) -> Answer:
        """Make one call; wait at most `patience` seconds for its turn. `where`: the zone, for the
        message. A list gives its one page. Raises `CallFailed`."""
        whose = project or str(self._options.project)
        where = where or str(params.get("zone") or whose)
        self._buckets.take(whose, api.quota, items=items, patience=patience)
        request = {"project": whose, **params}
        try:
            answer = self._ask(api, request, timeout, where, masked=self._masks)
        except CallFailed as failed:
            if isinstance(failed.error, Throttled) and not api.single:
                self.slow_down(api)
            if not (api.fields and self._masks and isinstance(failed.error, BadOrder)):
                raise
            # Less of an answer is a saving, and no condition: an endpoint that refuses gives all.
            answer = self._ask(api, request, timeout, where, masked=False)
            self._masks = False
        self._buckets.record(whose, api.quota, refused=False)
        page = getattr(answer, "pages", None)
        return next(iter(page)) if page is not None else answer

    def slow_down(self, api: GceApi) -> None:
        """The project's limit is reached: for a while none of its kind is called."""
        self._buckets.record(str(self._options.project), api.quota, refused=True)

    # --- within ---

    def _ask(
        self, api: GceApi, request: dict[str, Any], timeout: float, where: str, *, masked: bool
    ) -> Answer:
        mask = [(_FIELDS, api.fields)] if api.fields and masked else []
        try:
            method = getattr(self._client(api.service), api.method)
            return method(request=request, retry=None, timeout=timeout, metadata=mask)
        except (
            api_errors.GoogleAPICallError,
            auth_errors.GoogleAuthError,
            requests.RequestException,
            ParseError,
            DecodeError,
            TypeError,  # an SDK that does not know a field, or cannot make sense of an answer
            ValueError,
        ) as error:
            raise error_codes.failed(error, action=api.action, where=where) from error

    def _client(self, service: str) -> Any:
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._make(service)
            return self._clients[service]

    def _make(self, service: str) -> Any:
        client = getattr(compute_v1, f"{service}Client")
        plain, endpoint = self._options.plain, self._options.api_endpoint
        transport = client.get_transport_class("rest")(
            host=endpoint.partition("://")[2].rstrip("/") if endpoint else client.DEFAULT_ENDPOINT,
            url_scheme="http" if plain else "https",
            credentials=AnonymousCredentials() if plain else None,  # type: ignore[no-untyped-call]
            interceptor=_Ears(self._clock.observe),
        )
        return client(transport=transport)


class _Ears:
    """Hears the date of every success: for an error the SDK raises before. It calls `pre_X`,
    `post_X` and `post_X_with_metadata` of its interceptor, for each method X of a service."""

    def __init__(self, heard: Callable[[str | None], None]) -> None:
        self._heard = heard

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("pre_"):
            return lambda request, metadata: (request, metadata)
        if name.endswith("_with_metadata"):
            return self._note_date
        if name.startswith("post_"):
            return lambda response: response
        raise AttributeError(name)

    def _note_date(self, response: Any, metadata: Sequence[tuple[str, str]]) -> tuple[Any, Any]:
        self._heard(next((v for k, v in metadata if k.lower() == "date"), None))
        return response, metadata


def pb(message: Any) -> Any:
    """The protocol buffer of a message: reading its fields costs a tenth."""
    return type(message).pb(message)
