"""Two services that a guest asks: the metadata service (169.254.169.254), and the fabric to which
it says that it is up (168.63.129.16). Neither hands out a token of an identity."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any, Final

from vmrunner_localclouds.azure import children
from vmrunner_localclouds.azure.api_error import Json
from vmrunner_localclouds.vms import MetadataRequest, Reply

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.machines import AzureMachine

#: Where the fabric is.
FABRIC: Final = "168.63.129.16"

_GOAL: Final = """\
<?xml version="1.0" encoding="utf-8"?>
<GoalState xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
 <Version>2012-11-30</Version>
 <Incarnation>1</Incarnation>
 <Machine>
  <ExpectedState>Started</ExpectedState>
  <StopRolesDeadlineHint>300000</StopRolesDeadlineHint>
 </Machine>
 <Container>
  <ContainerId>{id}</ContainerId>
  <RoleInstanceList>
   <RoleInstance>
    <InstanceId>{id}._{name}</InstanceId>
    <State>Started</State>
   </RoleInstance>
  </RoleInstanceList>
 </Container>
</GoalState>
"""
_STATE: Final = re.compile(rb"<State>\s*(\w+)\s*</State>")


class AzureMetadata:
    """Answers each request from the machine's present state."""

    def __init__(self, machine: AzureMachine) -> None:
        self._machine = machine

    def __call__(self, request: MetadataRequest) -> Reply:
        with self._machine.cloud.held():
            if request.path.rstrip("/") == "/machine":
                return self._fabric(request)
            return self._metadata(request)

    # --- the fabric ---

    def _fabric(self, request: MetadataRequest) -> Reply:
        machine, what = self._machine, request.query.get("comp")
        if request.headers.get("x-ms-version") is None:
            return Reply(400)
        if request.method == "GET" and what == "goalstate":
            identifier = machine.shown["properties"]["vmId"]
            text = _GOAL.format(id=identifier, name=machine.name)
            return Reply(200, text.encode(), {"Content-Type": "text/xml; charset=utf-8"})
        if request.method == "POST" and what == "health":
            state = _STATE.search(request.body)
            if state is not None and state[1] == b"Ready":
                machine.report_ready()
            return Reply(200)
        return Reply(404)

    # --- the metadata service ---

    def _metadata(self, request: MetadataRequest) -> Reply:
        if (
            request.headers.get("metadata", "").lower() != "true"
            or "x-forwarded-for" in request.headers
        ):
            return _answer(400, {"error": "Bad request. Required metadata header not specified"})
        if request.method != "GET":
            return _answer(405, {"error": "Method Not Allowed"})
        if "api-version" not in request.query:
            return _answer(400, {"error": "Bad request. api-version was not specified"})
        found: Any = {"metadata": self._tree()}
        for part in filter(None, request.path.split("/")):
            step = int(part) if isinstance(found, list) and part.isdigit() else part
            try:
                found = found[step]
            except (KeyError, IndexError, TypeError):
                return _answer(404, {"error": "Not found"})
        if request.query.get("format") == "text" and not isinstance(found, dict | list):
            return Reply(200, str(found).encode(), {"Content-Type": "text/plain"})
        return _answer(200, found)

    def _tree(self) -> Json:
        instance = {"compute": self._compute(), "network": {"interface": self._interfaces()}}
        events = {"DocumentIncarnation": 1, "Events": []}
        return {"instance": instance, "scheduledevents": events}

    def _compute(self) -> Json:
        machine, properties = self._machine, self._machine.shown["properties"]
        profile = properties["osProfile"]
        linux = profile.get("linuxConfiguration") or {}
        keyed = bool(linux.get("disablePasswordAuthentication"))
        return {
            "azEnvironment": "AzurePublicCloud",
            "isHostCompatibilityLayerVm": "false",
            "location": machine.location,
            "name": machine.name,
            "osProfile": {
                "adminUsername": profile["adminUsername"],
                "computerName": profile["computerName"],
                "disablePasswordAuthentication": str(keyed).lower(),
            },
            "osType": "Linux",
            "priority": properties.get("priority", ""),
            "evictionPolicy": properties.get("evictionPolicy", ""),
            "provider": "Microsoft.Compute",
            "publicKeys": (linux.get("ssh") or {}).get("publicKeys") or [],
            "resourceGroupName": machine.id.split("/")[4],
            "resourceId": machine.id,
            "subscriptionId": machine.cloud.subscription,
            "tags": ";".join(f"{name}:{value}" for name, value in machine.tags.items()),
            "tagsList": [{"name": name, "value": value} for name, value in machine.tags.items()],
            "userData": base64.b64encode(machine.user_data).decode(),
            "vmId": properties["vmId"],
            "vmSize": machine.size,
            "zone": machine.zone,
        }

    def _interfaces(self) -> list[Json]:
        return [
            {
                "ipv4": {
                    "ipAddress": [_address(self._machine, config) for config in _configs(nic)],
                    "subnet": [{"address": "169.254.169.0", "prefix": "24"}],
                },
                "ipv6": {"ipAddress": []},
                "macAddress": nic["properties"]["macAddress"].replace("-", ""),
            }
            for nic in children.interfaces_of(self._machine)
        ]


def _configs(interface: Json) -> list[Json]:
    found: list[Json] = interface["properties"]["ipConfigurations"]
    return found


def _address(machine: AzureMachine, config: Json) -> Json:
    public = config["properties"].get("publicIPAddress") or {}
    resource = machine.cloud.resource(public.get("id", ""))
    return {
        "privateIpAddress": config["properties"]["privateIPAddress"],
        "publicIpAddress": resource["properties"]["ipAddress"] if resource else "",
    }


def _answer(status: int, body: Any) -> Reply:
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json"})
