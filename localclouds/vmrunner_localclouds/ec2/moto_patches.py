"""Handlers in place of moto's own where these are not as EC2 is, in effect for the requests of a
`LocalCloud` alone. Whatever else uses moto in this process finds it unchanged."""

from __future__ import annotations

import base64
import contextlib
import copy
import functools
import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from moto.core import responses, utils
from moto.core.responses import ActionResult
from moto.ec2 import utils as ec2_utils
from moto.ec2.exceptions import (
    DryRunClientError,
    OperationDisableApiStopNotPermitted,
    OperationNotPermitted4,
)
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.models.instances import InstanceBackend, MetadataOptions
from moto.ec2.responses.elastic_block_store import ElasticBlockStore
from moto.ec2.responses.elastic_network_interfaces import ElasticNetworkInterfaces
from moto.ec2.responses.general import General
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.responses.security_groups import SecurityGroups
from moto.ec2.responses.spot_instances import SpotInstances
from moto.scheduler.models import EventBridgeSchedulerBackend

from vmrunner_localclouds.ec2 import schedules
from vmrunner_localclouds.ec2.api_error import Ec2Refusal
from vmrunner_localclouds.ec2.faults import UNAVAILABLE
from vmrunner_localclouds.ec2.machines import Ec2Machine
from vmrunner_localclouds.ec2.paging import cut, paged
from vmrunner_localclouds.ec2.quotas import check_ids
from vmrunner_localclouds.ec2.run_instances import run_instances

if TYPE_CHECKING:
    from moto.ec2.models import EC2Backend

    from vmrunner_localclouds.ec2.cloud import LocalCloud

_CURRENT: ContextVar[LocalCloud | None] = ContextVar("localcloud", default=None)

#: Filters of DescribeInstances that moto does not know, by the attribute that they look at.
_FILTERS: Final = {
    "client-token": "client_token",
    "instance-lifecycle": "lifecycle",
    "spot-instance-request-id": "spot_instance_request_id",
}
#: Modules that took the clock by its name.
_CLOCKS: Final = (
    "moto.core.utils",
    "moto.ec2.models.amis",
    "moto.ec2.models.elastic_block_store",
    "moto.ec2.models.instances",
    "moto.ec2.models.key_pairs",
    "moto.scheduler.models",
)

Handler = Callable[..., Any]


@contextlib.contextmanager
def within(cloud: LocalCloud) -> Iterator[None]:
    """Let moto work for this cloud inside of the block."""
    token = _CURRENT.set(cloud)
    try:
        yield
    finally:
        _CURRENT.reset(token)


@functools.cache
def install() -> None:
    """Install the patches, once in a process."""
    _instead(InstanceResponse, "run_instances", run_instances)
    _instead(InstanceResponse, "terminate_instances", _terminate_instances)
    _instead(InstanceResponse, "stop_instances", _stop_instances)
    _instead(InstanceResponse, "start_instances", _start_instances)
    _instead(InstanceResponse, "describe_instances", _describe_instances)
    _instead(InstanceResponse, "modify_instance_metadata_options", _modify_metadata)
    _instead(InstanceResponse, "describe_instance_types", _describe_types)
    _instead(General, "get_console_output", _get_console_output)
    _instead(ElasticBlockStore, "describe_volumes", cut("Volumes"))
    _instead(ElasticBlockStore, "describe_snapshots", cut("Snapshots"))
    _instead(ElasticNetworkInterfaces, "describe_network_interfaces", cut("NetworkInterfaces"))
    _instead(ElasticNetworkInterfaces, "delete_network_interface", _delete_interface)
    _instead(SecurityGroups, "describe_security_groups", cut("SecurityGroups"))
    _instead(SecurityGroups, "delete_security_group", _delete_group)
    _instead(SpotInstances, "describe_spot_instance_requests", cut("SpotInstanceRequests"))
    _instead(SpotInstances, "cancel_spot_instance_requests", _cancel_spot_requests)
    _instead(InstanceBackend, "all_reservations", _all_reservations)
    _instead(TaggedEC2Resource, "get_tags", _get_tags)
    _instead(EventBridgeSchedulerBackend, "create_schedule", schedules.create_schedule)
    _instead(EventBridgeSchedulerBackend, "create_schedule_group", schedules.create_group)
    _instead(EventBridgeSchedulerBackend, "update_schedule", schedules.update_schedule)
    _instead(EventBridgeSchedulerBackend, "list_schedules", schedules.list_schedules)
    # It looks through all members of a class at each request.
    responses.method_names_from_class = functools.cache(  # type: ignore[attr-defined]
        utils.method_names_from_class
    )
    ec2_utils.filter_dict_attribute_mapping.update(_FILTERS)
    for name in _CLOCKS:
        module = importlib.import_module(name)
        module.utcnow = functools.partial(_utcnow, module.utcnow)  # type: ignore[attr-defined]


def _instead(owner: type, name: str, replacement: Handler) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def handler(self: Any, *args: Any, **kwargs: Any) -> Any:
        cloud = _CURRENT.get()
        if cloud is None:
            return original(self, *args, **kwargs)
        return replacement(cloud, self, functools.partial(original), *args, **kwargs)

    setattr(owner, name, handler)


def _utcnow(original: Callable[[], datetime]) -> datetime:
    cloud = _CURRENT.get()
    if cloud is None:
        return original()
    return datetime.fromtimestamp(cloud.now(), UTC).replace(tzinfo=None)


# --- reading -------------------------------------------------------------------------------------


def _describe_instances(cloud: LocalCloud, response: Any, _: Handler) -> ActionResult:
    """Pages of instances, where moto cuts between reservations. While a zone is disrupted only a
    list of instances in other zones is answered."""
    ids, filters = response._get_param("InstanceIds", []), response._filters_from_querystring()
    if ids and response._get_param("MaxResults"):
        raise Ec2Refusal(
            "InvalidParameterCombination",
            "The parameter instancesSet cannot be used with the parameter maxResults",
        )
    backend = response.ec2_backend
    named = _all_named(cloud, response, ids)
    zones = {machine.zone for machine in named} if ids else _zones(backend)
    if zones & cloud.outages:
        raise Ec2Refusal(UNAVAILABLE.code, UNAVAILABLE.message, status=UNAVAILABLE.status)
    if ids:
        found = backend.get_reservations_by_instance_ids(ids, filters=filters)
    else:
        found = backend.describe_instances(filters=filters)
    flat = [(reservation, moto) for reservation in found for moto in reservation.instances]
    part, token = paged(response, flat)
    kept: dict[str, Any] = {}
    for reservation, moto in part:
        if reservation.id not in kept:
            kept[reservation.id] = reservation
            reservation.instances = []
        reservation.instances.append(moto)
    return ActionResult({"Reservations": list(kept.values()), "NextToken": token})


def _all_reservations(
    cloud: LocalCloud, backend: Any, original: Handler, filters: Any = None
) -> Any:
    """All reservations, without instances that are not visible yet."""
    found = original(backend)
    hidden = cloud.hidden
    if hidden:
        for reservation in found:
            reservation.instances = [m for m in reservation.instances if m.id not in hidden]
        found = [reservation for reservation in found if reservation.instances]
    return found if filters is None else ec2_utils.filter_reservations(found, filters)


def _get_tags(_: LocalCloud, resource: Any, __: Handler) -> list[dict[str, str]]:
    """Tags by a look-up, where moto scans every tag of everything."""
    kind = ec2_utils.EC2_PREFIX_TO_RESOURCE.get(ec2_utils.get_prefix(resource.id), "")
    return [
        {"resource_id": resource.id, "key": key, "value": value, "resource_type": kind}
        for key, value in resource.ec2_backend.tags.get(resource.id, {}).items()
    ]


def _get_console_output(cloud: LocalCloud, response: Any, original: Handler) -> ActionResult:
    """Answer with the output of the VM's serial port, where there is a VM."""
    machine = _named(cloud, response, response._get_param("InstanceId"))
    if response._get_param("Latest") and re.match(r"[a-z]+[1-4]\.", machine.moto.instance_type):
        raise Ec2Refusal(
            "UnsupportedOperation", "This instance type does not support retrieving it."
        )
    if machine.body is None:
        result: ActionResult = original(response)
        return result
    when = datetime.fromtimestamp(cloud.now(), UTC)
    output = base64.b64encode(machine.body.console).decode()
    answer = {"InstanceId": machine.id, "Timestamp": when, "Output": output}
    return ActionResult(answer)


# --- changing ------------------------------------------------------------------------------------


def _terminate_instances(cloud: LocalCloud, response: Any, _: Handler) -> ActionResult:
    """Terminate all of them or none: one bad id, or one that is protected, and nothing is
    terminated."""
    ids = response._get_param("InstanceIds", [])
    force = bool(response._get_param("Force"))
    check_ids(ids)
    machines = _all_named(cloud, response, ids)
    response.error_on_dryrun()
    for machine in machines:
        if machine.protected and machine.alive:
            raise OperationNotPermitted4(machine.id)
        if machine.stop_protected and machine.alive:
            raise OperationDisableApiStopNotPermitted(machine.id)
    return _changed("TerminatingInstances", machines, lambda machine: machine.end(force=force))


def _stop_instances(cloud: LocalCloud, response: Any, _: Handler) -> ActionResult:
    """Stop all of them or none."""
    machines = _all_named(cloud, response, response._get_param("InstanceIds", []))
    response.error_on_dryrun()
    for machine in machines:
        _demand(machine, "stopped", ("running", "stopping", "stopped"))
        if machine.moto.lifecycle == "spot":  # each request is one-time here
            raise Ec2Refusal(
                "UnsupportedOperation",
                f"You can't stop the Spot Instance '{machine.id}' because it is associated with a "
                "one-time Spot Instance request.",
            )
        if machine.stop_protected:
            raise Ec2Refusal(
                "OperationNotPermitted",
                f"The instance '{machine.id}' may not be stopped. Modify its 'disableApiStop' "
                "instance attribute and try again.",
            )
    hard = response._get_param("SkipOsShutdown") in (True, "true")
    return _changed("StoppingInstances", machines, lambda machine: machine.stop(hard=hard))


def _start_instances(cloud: LocalCloud, response: Any, _: Handler) -> ActionResult:
    """Start all of them or none."""
    machines = _all_named(cloud, response, response._get_param("InstanceIds", []))
    response.error_on_dryrun()
    for machine in machines:
        _demand(machine, "started", ("stopped", "pending", "running"))
    return _changed("StartingInstances", machines, Ec2Machine.start)


def _demand(machine: Ec2Machine, what: str, states: Sequence[str]) -> None:
    if machine.state not in states:
        text = f"The instance '{machine.id}' is not in a state from which it can be {what}."
        raise Ec2Refusal("IncorrectInstanceState", text)


def _changed(
    key: str, machines: Sequence[Ec2Machine], change: Callable[[Ec2Machine], None]
) -> ActionResult:
    """Change them; answer with the former and the present state of each."""
    changes = []
    for machine in machines:
        before = {"Code": machine.moto.state_code, "Name": machine.state}
        change(machine)
        after = {"Code": machine.moto.state_code, "Name": machine.state}
        changes.append({"InstanceId": machine.id, "PreviousState": before, "CurrentState": after})
    return ActionResult({key: changes})


def _describe_types(cloud: LocalCloud, response: Any, original: Handler) -> ActionResult:
    """Describe types. Raises `Ec2Refusal` for a name that the region lacks."""
    lost = cloud.lacking & set(response._get_param("InstanceTypes", []))
    if lost:
        text = f"The following supplied instance types do not exist: {sorted(lost)}"
        raise Ec2Refusal("InvalidInstanceType", text)
    found: Any = original(response).result
    types = [
        instance_type
        for instance_type in found["InstanceTypes"]
        if instance_type["InstanceType"] not in cloud.lacking
    ]
    return ActionResult({"InstanceTypes": types})


def _delete_interface(_: LocalCloud, response: Any, original: Handler) -> ActionResult:
    """Delete an interface, unless it is in use, also by a machine that is shutting down."""
    name = response._get_param("NetworkInterfaceId")
    interface = response.ec2_backend.enis.get(name)
    if interface is not None and interface.attachment_id is not None:
        text = f"Network interface '{name}' is currently in use."
        raise Ec2Refusal("InvalidParameterValue", text)
    result: ActionResult = original(response)
    return result


def _delete_group(cloud: LocalCloud, response: Any, original: Handler) -> ActionResult:
    """Delete a group, unless a machine is in it, also one that is shutting down."""
    name = response._get_param("GroupId")
    for machine in cloud.machines:
        alive = machine.backend is response.ec2_backend and machine.state != "terminated"
        if alive and name in {group.id for group in machine.moto.security_groups}:
            raise Ec2Refusal("DependencyViolation", f"resource {name} has a dependent object")
    result: ActionResult = original(response)
    return result


def _cancel_spot_requests(_: LocalCloud, response: Any, original: Handler) -> ActionResult:
    for name in response._get_param("SpotInstanceRequestIds", []):
        if name not in response.ec2_backend.spot_instance_requests:
            text = f"The spot instance request ID '{name}' does not exist"
            raise Ec2Refusal("InvalidSpotInstanceRequestID.NotFound", text)
    result: ActionResult = original(response)
    return result


def _modify_metadata(cloud: LocalCloud, response: Any, _: Handler) -> ActionResult:
    """Change the metadata options; one that is not given stays as it was."""
    machine = _named(cloud, response, response._get_param("InstanceId"))
    if response._get_param("DryRun"):
        raise DryRunClientError
    old = machine.moto.metadata_options
    options = MetadataOptions(
        {
            "HttpTokens": response._get_param("HttpTokens") or old.http_tokens,
            "HttpPutResponseHopLimit": response._get_param("HttpPutResponseHopLimit")
            or old.http_put_response_hop_limit,
            "HttpEndpoint": response._get_param("HttpEndpoint") or old.http_endpoint,
        }
    )
    options.state = "pending"
    machine.moto.metadata_options = options
    cloud.later(cloud.seal_seconds, lambda: setattr(options, "state", "applied"))
    reported = copy.copy(options)
    reported.state = "pending"  # as EC2 answers, however fast it is
    return ActionResult({"InstanceId": machine.id, "InstanceMetadataOptions": reported})


def _zones(backend: EC2Backend) -> set[str]:
    return {str(subnet.availability_zone) for subnet in backend.describe_subnets()}


def _named(cloud: LocalCloud, response: Any, name: str) -> Ec2Machine:
    """The machine of this id, in the region of the request."""
    (machine,) = _all_named(cloud, response, [name])
    return machine


def _all_named(cloud: LocalCloud, response: Any, names: Sequence[str]) -> list[Ec2Machine]:
    """The machines of these ids. Raises `Ec2Refusal`, which names all that do not exist."""
    for name in names:
        if not re.fullmatch(r"i-[0-9a-f]{8}([0-9a-f]{9})?", name):
            raise Ec2Refusal("InvalidInstanceID.Malformed", f'Invalid id: "{name}"')
    found = [cloud.by_id.get(name) for name in names]
    existing = [m for m in found if m and not m.hidden and m.backend is response.ec2_backend]
    if len(existing) < len(names):
        lost = ", ".join(sorted(set(names) - {machine.id for machine in existing}))
        single = ", " not in lost
        text = (
            f"The instance ID{'' if single else 's'} '{lost}' do{'es' if single else ''} not exist"
        )
        raise Ec2Refusal("InvalidInstanceID.NotFound", text)
    return existing


__all__ = ["install", "within"]
