"""The calls that this driver makes, and no others: each waits for its token, tells the time, and
fails in one way. Only here is Azure's SDK used.

A call over plain HTTP, which goes to this host alone, must be told so: the SDK sends tokens nowhere
else.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from operator import attrgetter
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import requests
from azure.core import MatchConditions
from azure.core.credentials import AccessToken, TokenCredential
from azure.core.exceptions import AzureError
from azure.core.pipeline.policies import (
    ContentDecodePolicy,
    CustomHookPolicy,
    RequestIdPolicy,
    UserAgentPolicy,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.core.rest import HttpRequest
from azure.identity import DefaultAzureCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.computeschedule import ComputeScheduleMgmtClient
from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy
from azure.mgmt.network import NetworkManagementClient
from requests.adapters import HTTPAdapter

from vmrunner.errors import Throttled, Uncertain
from vmrunner.lib.token_bucket import Limit
from vmrunner.providers.azure import error_codes
from vmrunner.providers.azure.options import AzureOptions
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.clock import CloudClock
from vmrunner.providers.common.rate_limits import Buckets, Quota

#: Part of an answer, as JSON has it.
Answer = Mapping[str, Any]

#: Of one subscription and principal in one region, as Resource Manager documents them (reference:
#: "throttling": a bucket of so many, and so many more a second).
QUOTAS: Final = {
    "read": Quota(Limit(250, 25)),
    "write": Quota(Limit(200, 10)),
    "delete": Quota(Limit(200, 10)),
    # Of one VM, and of one operation, as Microsoft.Compute documents them ("Compute throttling
    # limits"): the bursts are a little less than theirs, since other programs may look too.
    "vm get": Quota(Limit(32, 11 / 60)),
    "vm put": Quota(Limit(12, 4 / 60)),
    "vm update": Quota(Limit(12, 4 / 60)),
    "vm delete": Quota(Limit(12, 4 / 60)),
    "operation": Quota(Limit(42, 14 / 60)),
    # Of the subscription, likewise.
    "vm list": Quota(Limit(880, 290 / 60)),
}

#: Seconds.
CONNECT, READ = 5.0, 30.0
#: So many connections are kept: looks, creates and deletes have 64 threads each.
CONNECTIONS: Final = 192
# The caller tells of an answer that is no document of Azure's in one line. The SDK's own word for
# it is a traceback.
if (_sdk := logging.getLogger("azure.mgmt")).level == logging.NOTSET:
    _sdk.setLevel(logging.ERROR)


class AzureApi(NamedTuple):
    """One call: the SDK's service and method, and the right that it needs. `grouped`: it is about a
    resource group. `own`: the limit that it has beside Resource Manager's: that of one VM, or of
    lists of them; "": none."""

    service: str
    method: str  # virtual_machines.get
    right: str
    grouped: bool = True
    own: str = ""

    @property
    def action(self) -> str:
        """Return the right as roles name it: Microsoft.Compute/virtualMachines/write."""
        return f"Microsoft.{self.service}/{self.right}"

    @property
    def quota(self) -> str:
        """Name of the limit that it counts against."""
        last = self.right.rpartition("/")[2]
        return last if last in QUOTAS else "write"


class _Charge(NamedTuple):
    """A bucket that a call takes from."""

    place: str
    quota: str


def _compute(method: str, right: str, *, grouped: bool = True, own: str = "") -> AzureApi:
    return AzureApi("Compute", method, right, grouped, own)


def _network(method: str, right: str) -> AzureApi:
    return AzureApi("Network", method, right)


def _schedule(method: str, right: str) -> AzureApi:
    return AzureApi("ComputeSchedule", f"scheduled_actions.{method}", right, grouped=False)


VM: Final = _compute("virtual_machines.get", "virtualMachines/read", own="vm get")
VMS: Final = _compute("virtual_machines.list", "virtualMachines/read", own="vm list")
PUT: Final = _compute(
    "virtual_machines.begin_create_or_update", "virtualMachines/write", own="vm put"
)
DELETE: Final = _compute("virtual_machines.begin_delete", "virtualMachines/delete", own="vm delete")
PARK: Final = _compute(
    "virtual_machines.begin_deallocate", "virtualMachines/deallocate/action", own="vm delete"
)
WAKE: Final = _compute(
    "virtual_machines.begin_start", "virtualMachines/start/action", own="vm update"
)
CONSOLE: Final = _compute(
    "virtual_machines.retrieve_boot_diagnostics_data",
    "virtualMachines/retrieveBootDiagnosticsData/action",
    own="vm get",
)
DISKS: Final = _compute("disks.list_by_resource_group", "disks/read")
DELETE_DISK: Final = _compute("disks.begin_delete", "disks/delete")
SNAPSHOTS: Final = _compute("snapshots.list_by_resource_group", "snapshots/read")
DELETE_SNAPSHOT: Final = _compute("snapshots.begin_delete", "snapshots/delete")
IMAGE: Final = _compute("images.get", "images/read")
IMAGES: Final = _compute("images.list_by_resource_group", "images/read")
TAG_IMAGE: Final = _compute("images.begin_update", "images/write")
DELETE_IMAGE: Final = _compute("images.begin_delete", "images/delete")
DEFINITION: Final = _compute("gallery_images.get", "galleries/images/read")
DEFINITIONS: Final = _compute("gallery_images.list_by_gallery", "galleries/images/read")
PUT_DEFINITION: Final = _compute("gallery_images.begin_create_or_update", "galleries/images/write")
GALLERY: Final = _compute("galleries.get", "galleries/read")
PUT_GALLERY: Final = _compute("galleries.begin_create_or_update", "galleries/write")
VERSION: Final = _compute("gallery_image_versions.get", "galleries/images/versions/read")
VERSIONS: Final = _compute(
    "gallery_image_versions.list_by_gallery_image", "galleries/images/versions/read"
)
TAG_VERSION: Final = _compute(
    "gallery_image_versions.begin_update", "galleries/images/versions/write"
)
DELETE_VERSION: Final = _compute(
    "gallery_image_versions.begin_delete", "galleries/images/versions/delete"
)
SIZES: Final = _compute("resource_skus.list", "skus/read", grouped=False)
USAGE: Final = _compute("usage.list", "locations/usages/read", grouped=False)
NETWORK_USAGE: Final = AzureApi("Network", "usages.list", "locations/usages/read", grouped=False)
INTERFACE: Final = _network("network_interfaces.get", "networkInterfaces/read")
INTERFACES: Final = _network("network_interfaces.list", "networkInterfaces/read")
DELETE_INTERFACE: Final = _network("network_interfaces.begin_delete", "networkInterfaces/delete")
ADDRESS: Final = _network("public_ip_addresses.get", "publicIPAddresses/read")
ADDRESSES: Final = _network("public_ip_addresses.list", "publicIPAddresses/read")
DELETE_ADDRESS: Final = _network("public_ip_addresses.begin_delete", "publicIPAddresses/delete")
SUBNET: Final = _network("subnets.get", "virtualNetworks/subnets/read")
SECURITY_GROUP: Final = _network("network_security_groups.get", "networkSecurityGroups/read")
SUBMIT: Final = _schedule(
    "virtual_machines_submit_deallocate", "locations/virtualMachinesSubmitDeallocate/action"
)
CANCEL: Final = _schedule(
    "virtual_machines_cancel_operations", "locations/virtualMachinesCancelOperations/action"
)
_CLIENTS: Final = {
    "Compute": ComputeManagementClient,
    "ComputeSchedule": ComputeScheduleMgmtClient,
    "Network": NetworkManagementClient,
}


class Begun(NamedTuple):
    """A change that was accepted. `operation`: where it is followed; "": nowhere."""

    status: int
    operation: str


class _PlaceholderToken:
    """A credential for an endpoint on this host, which asks for none."""

    def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        return AccessToken("local", int(time.time()) + 3600)


class AzureClient:
    """The SDK under one configuration. Thread-safe; nothing is retried here."""

    def __init__(
        self, options: AzureOptions, clock: CloudClock, *, buckets: Buckets | None = None
    ) -> None:
        self._options = options
        self._clock = clock
        self._buckets = buckets or Buckets(QUOTAS)
        self._lock = threading.RLock()
        self._clients: dict[str, Any] = {}
        self._transport = _transport(trust=not options.plain)
        self._credential: TokenCredential | None = None

    def __call__(self, api: AzureApi, **params: Any) -> Answer:
        """Make one call whose answer is all of it. Raises `CallFailed`."""
        # As bytes: the SDK's models of one VM take as long as the rest of the call.
        found, _ = self._ask(api, read=_document, stream=True, **params)
        answer: Answer = found
        return answer

    def begin(self, api: AzureApi, *, patience: float = 30.0, **params: Any) -> Begun:
        """Make a change, and wait for no end of it. Raises `CallFailed`."""
        _, answer = self._ask(api, patience=patience, polling=False, **params)
        headers = answer.headers if answer is not None else {}
        url = headers.get("Azure-AsyncOperation", "")
        operation = url if self._options.is_home(url) else ""
        return Begun(answer.status_code if answer is not None else 0, operation)

    def insert(self, *, patience: float, **params: Any) -> Begun:
        """Make a VM where there is none of its name. Raises `CallFailed`."""
        only = {"etag": "*", "match_condition": MatchConditions.IfMissing}
        return self.begin(PUT, patience=patience, **only, **params)

    def page(
        self, api: AzureApi, token: str | None = None, **params: Any
    ) -> tuple[list[Answer], str | None]:
        """One page of a list, and the token of the next. Raises `CallFailed`."""
        if token is not None and not self._options.is_home(token):
            raise CallFailed("", Uncertain(f"{api.action}: a next page elsewhere: {token[:100]}"))
        items: list[Answer] = []
        more, _ = self._ask(
            api,
            read=lambda listed: _more_after(listed.by_page(token)),
            hook=lambda answer: items.extend(_taken(answer)),
            **params,
        )
        return items, more

    def listed(self, api: AzureApi, **params: Any) -> Iterator[Answer]:
        """Yield all items of one list, page by page. Raises `CallFailed`."""
        token: str | None = None
        while True:
            items, token = self.page(api, token, **params)
            yield from items
            if token is None:
                return

    def get(self, path: str, *, action: str, version: str = "") -> Answer:
        """Read what no client of the SDK's here reads: a path, or an operation's own address.
        Raises `CallFailed`."""
        url = path if path.startswith("http") else f"{self._options.base}{path}"
        params = {"api-version": version} if version else {}

        def ask(**options: Any) -> Answer:
            client = self._client("Compute")
            answer = client.send_request(HttpRequest("GET", url, params=params), **options)
            answer.raise_for_status()
            found: Answer = answer.json()
            return found

        charges = [self._charge("read")]
        if path.startswith("http"):  # an operation, which has a limit of its own
            # Without its query, whose signature belongs in no log.
            charges.insert(0, _Charge(urlsplit(url).path, "operation"))
        found, _ = self._call(ask, charges, action, self._options.group, 30.0)
        return found if isinstance(found, Mapping) else {}

    def spare(self) -> int:
        """Number of reads that can be made without waiting."""
        return int(self._buckets.spare(*self._charge("read")))

    def may_view(self, group: str, name: str) -> bool:
        """True if a VM can be looked at without waiting, as far as its own limit goes."""
        return self._buckets.spare(_vm(group, name), VM.own) >= 1

    # --- within ---

    def _ask(
        self,
        api: AzureApi,
        *,
        group: str = "",
        patience: float = 30.0,
        read: Callable[[Any], Any] = lambda answer: answer,
        hook: Callable[[Any], object] = lambda _: None,
        **params: Any,
    ) -> tuple[Any, Any]:
        where = group or self._options.group
        if api.grouped:
            params["resource_group_name"] = where

        def ask(**options: Any) -> Any:
            method = attrgetter(api.method)(self._client(api.service))
            return read(method(**params, **options))

        charges = [self._charge(api.quota)]
        if api.own:
            name = params.get("vm_name")
            charges.insert(0, _Charge(_vm(where, name), api.own) if name else self._charge(api.own))
        return self._call(ask, charges, api.action, where, patience, hook)

    def _charge(self, quota: str) -> _Charge:
        """Return the subscription's bucket."""
        return _Charge(str(self._options.subscription), quota)

    def _call(
        self,
        ask: Callable[..., Any],
        charges: Sequence[_Charge],
        action: str,
        where: str,
        patience: float,
        hook: Callable[[Any], object] = lambda _: None,
    ) -> tuple[Any, Any]:
        """Make a call; return the result of `ask`, and the last response, which `hook` gets before
        the SDK reads it. Raises `CallFailed`. `charges`: the narrowest first, which alone pauses
        after a refusal that does not name the subscription."""
        for charge in charges:
            self._buckets.take(*charge, patience=patience)
        responses: list[Any] = []

        def note(result: Any) -> None:
            responses.append(result.http_response)
            hook(result.http_response)

        options: dict[str, Any] = {"raw_response_hook": note}
        if self._options.plain:
            options["enforce_https"] = False
        try:
            found = ask(**options)
        except (
            AzureError,
            AttributeError,  # an SDK that does not know a method, or cannot make sense of an answer
            KeyError,
            TypeError,
            ValueError,
        ) as error:
            if responses:  # a proxy on the way may have made it
                self._clock.overheard(responses[-1].headers.get("Date"))
            failed = error_codes.failed(error, action=action, where=where)
            if isinstance(failed.error, Throttled):
                wait = self._told_pause(
                    responses[-1].headers.get("Retry-After", "") if responses else ""
                )
                paused = charges[-1] if error_codes.is_of_all(error) else charges[0]
                self._buckets.record(*paused, refused=True, retry_after=wait)
                failed.error.wait = wait
            raise failed from error
        if responses:
            self._clock.observe(responses[-1].headers.get("Date"))
        for charge in charges:
            self._buckets.record(*charge, refused=False)
        return found, responses[-1] if responses else None

    def _told_pause(self, header: str) -> float:
        """Return the seconds that `Retry-After` says; 0: it says nothing that can be read."""
        if header.isascii() and header.isdigit():
            return float(header)
        try:
            return parsedate_to_datetime(header).timestamp() - self._clock.now()
        except ValueError:
            return 0.0

    def _client(self, service: str) -> Any:
        with self._lock:
            if service not in self._clients:
                base = self._options.base
                self._clients[service] = _CLIENTS[service](
                    self._credentials(),
                    str(self._options.subscription),
                    base_url=base,
                    # No more than these: the engine knows better what may be sent again, and when;
                    # and only the owner registers a provider in the subscription.
                    policies=[
                        RequestIdPolicy(),
                        UserAgentPolicy("vmrunner"),
                        ContentDecodePolicy(),
                        ARMChallengeAuthenticationPolicy(self._credentials(), f"{base}/.default"),
                        CustomHookPolicy(),
                    ],
                    transport=self._transport,
                )
            return self._clients[service]

    def _credentials(self) -> TokenCredential:
        if self._credential is None:
            self._credential = (
                _PlaceholderToken() if self._options.plain else DefaultAzureCredential()
            )
        return self._credential


def _transport(*, trust: bool) -> RequestsTransport:
    """Make the connections of all clients. `trust`: through a proxy, if the environment names one:
    that is for what is elsewhere."""
    session = requests.Session()
    session.trust_env = trust
    adapter = HTTPAdapter(pool_maxsize=CONNECTIONS)  # which sends nothing again
    for scheme in ("https://", "http://"):
        session.mount(scheme, adapter)
    return RequestsTransport(
        session=session, session_owner=False, connection_timeout=CONNECT, read_timeout=READ
    )


def _document(answer: Iterator[bytes]) -> Answer:
    found = json.loads(b"".join(answer))
    if not isinstance(found, Mapping):
        raise TypeError(f"an answer that is no object: {str(found)[:100]}")
    return found


def _taken(answer: Any) -> list[Answer]:
    """Take the items out of a page, before the SDK makes models of them: that takes as long as the
    rest of the call."""
    if answer.status_code != HTTPStatus.OK:
        return []
    document = answer.json()
    items: list[Answer] = document["value"]
    if not isinstance(items, list):
        raise TypeError(f"a page without a list: {str(items)[:100]}")
    document["value"] = []
    return items


def _more_after(pages: Any) -> str | None:
    """Read one page, and return the token of the next."""
    next(pages, None)
    return pages.continuation_token or None


def _vm(group: str, name: str) -> str:
    """Return the place of one VM's own limits."""
    return f"{group}/{name}".lower()


def last(identifier: str) -> str:
    """Return the name at the end of an id."""
    return identifier.rpartition("/")[2]


def part(item: Any, *names: str) -> Any:
    """Return a part of an answer by its path; None where there is none."""
    for name in names:
        if not isinstance(item, Mapping):
            return None
        item = item.get(name)
    return item
