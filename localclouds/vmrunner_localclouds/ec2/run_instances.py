"""RunInstances, as EC2 does it: checked, idempotent by its client token, out of pools that may be
empty, and tagged whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from moto.core.responses import ActionResult
from moto.ec2.exceptions import DryRunClientError
from moto.ec2.models.spot_requests import SpotInstanceRequest
from moto.ec2.utils import convert_tag_spec, random_spot_request_id

from vmrunner_localclouds.ec2.api_error import Ec2Refusal
from vmrunner_localclouds.ec2.faults import NO_CAPACITY
from vmrunner_localclouds.ec2.machines import Ec2Machine
from vmrunner_localclouds.ec2.quotas import check_launch

if TYPE_CHECKING:
    from moto.ec2.models import EC2Backend
    from moto.ec2.models.instances import Instance, Reservation
    from moto.ec2.responses.instances import InstanceResponse

    from vmrunner_localclouds.ec2.cloud import LocalCloud

#: What does not make another request of it.
_NOT_ASKED: Final = ("ClientToken", "DryRun")


def run_instances(
    cloud: LocalCloud, response: InstanceResponse, original: Callable[[Any], ActionResult]
) -> ActionResult:
    """Launch in place of moto's `original`, which is called once all checks pass."""
    backend: EC2Backend = response.ec2_backend
    params: Any = response.params
    check_launch(backend, params)
    if params.get("DryRun"):
        raise DryRunClientError
    request_json = json.dumps(
        {k: v for k, v in params.items() if k not in _NOT_ASKED}, sort_keys=True, default=str
    )
    token = str(params.get("ClientToken", ""))
    place = (backend.region_name, _zone(backend, params), token)
    remembered = cloud.tokens.get(place) if token else None
    if remembered is not None and cloud.now() < remembered.created + cloud.token_seconds:
        return _again(remembered, request_json)
    _draw(cloud, backend, params)
    params["BlockDeviceMappings"] = _mappings(backend, params)
    params["MinCount"] = params.get("MaxCount", 1)  # moto makes MinCount of them
    result = original(response)
    reservation: Reservation = result.result  # type: ignore[assignment]
    machines = [_furnished(cloud, backend, params, moto) for moto in reservation.instances]
    cloud.tokens[place] = Token(request_json, cloud.now(), reservation, machines)
    return result


class Token:
    """The launch that a client token stands for."""

    def __init__(
        self,
        request_json: str,
        created: float,
        reservation: Reservation,
        machines: list[Ec2Machine],
    ) -> None:
        self.request_json = request_json
        self.created = created
        self.reservation = reservation
        self.machines = machines


def _again(remembered: Token, request_json: str) -> ActionResult:
    if remembered.request_json != request_json:
        raise Ec2Refusal(
            "IdempotentParameterMismatch",
            "Arguments on this idempotent request are inconsistent with arguments used in "
            "previous request(s).",
        )
    if all(machine.state == "terminated" for machine in remembered.machines):
        raise Ec2Refusal(
            "IdempotentInstanceTerminated", "The instance of this client token was terminated."
        )
    return ActionResult(remembered.reservation)


def _zone(backend: EC2Backend, params: Any) -> str:
    """The zone, or "": a launch is idempotent in a zone where one is given, else in the region."""
    subnet = subnet_of(params)
    if subnet:
        return str(backend.get_subnet(subnet).availability_zone)
    return str(params.get("Placement", {}).get("AvailabilityZone", ""))


def subnet_of(params: Any) -> str | None:
    """The subnet of the first interface."""
    nics = params.get("NetworkInterfaces") or []
    named = next((nic["SubnetId"] for nic in nics if "SubnetId" in nic), None)
    found: str | None = named or params.get("SubnetId")
    return found


def _draw(cloud: LocalCloud, backend: EC2Backend, params: Any) -> None:
    """Take room from the pool and the account's quota, or refuse."""
    if _zone(backend, params) in cloud.outages:
        raise Ec2Refusal(NO_CAPACITY.code, NO_CAPACITY.message, status=NO_CAPACITY.status)
    if params.get("InstanceMarketOptions") and not cloud.spot_role:
        # Only a launch is refused so, no dry run.
        text = "The provided credentials do not have permission to create the service-linked role"
        raise Ec2Refusal("AuthFailure.ServiceLinkedRoleCreationNotPermitted", text, status=403)
    market = "spot" if params.get("InstanceMarketOptions") else "on-demand"
    pool = (params.get("InstanceType"), subnet_of(params), market)
    if pool in cloud.dry:
        raise Ec2Refusal(NO_CAPACITY.code, NO_CAPACITY.message, status=NO_CAPACITY.status)
    most = cloud.quota.get(market)
    if most is not None:
        spot = market == "spot"
        living = [m for m in cloud.machines if m.alive and (m.moto.lifecycle == "spot") is spot]
        if len(living) + int(params.get("MaxCount", 1)) > most:
            code = "MaxSpotInstanceCountExceeded" if spot else "VcpuLimitExceeded"
            raise Ec2Refusal(code, f"You have requested more than your limit of {most} allows.")


def _mappings(backend: EC2Backend, params: Any) -> list[dict[str, Any]]:
    """The image's mappings, each with what the request says of it, and then the request's own."""
    image = next(iter(backend.describe_images(ami_ids=[params["ImageId"]])))
    merged = {m["DeviceName"]: dict(m["Ebs"]) for m in image.block_device_mappings}
    for mapping in params.get("BlockDeviceMappings") or []:
        merged.setdefault(mapping["DeviceName"], {"DeleteOnTermination": True})
        merged[mapping["DeviceName"]] |= dict(mapping.get("Ebs", {}))
    return [{"DeviceName": name, "Ebs": ebs} for name, ebs in merged.items()]


def _furnished(cloud: LocalCloud, backend: EC2Backend, params: Any, moto: Instance) -> Ec2Machine:
    """Add what moto forgot of the request."""
    tags = convert_tag_spec(params.get("TagSpecifications") or [])
    moto.disable_api_termination = bool(params.get("DisableApiTermination"))
    moto.disable_api_stop = bool(params.get("DisableApiStop"))
    nic_params = {int(n.get("DeviceIndex", 0)): n for n in params.get("NetworkInterfaces") or []}
    for index, nic in moto.nics.items():
        nic.delete_on_termination = nic_params.get(index, {}).get("DeleteOnTermination", True)
        nic.add_tags(tags.get("network-interface", {}))
    if params.get("InstanceMarketOptions"):
        _spot_request(backend, params, moto, tags)
    token = str(params.get("ClientToken", ""))
    machine = Ec2Machine(world=cloud, backend=backend, moto=moto, token=token)
    cloud.add(machine)
    return machine


class _Filled(SpotInstanceRequest):
    """A spot request whose instance was launched already."""

    def __init__(self, moto: Instance, *args: Any) -> None:
        self._moto = moto
        super().__init__(*args)

    def launch_instance(self) -> Instance:
        return self._moto

    @property
    def create_time(self) -> str:
        return f"{self._moto.launch_time:%Y-%m-%dT%H:%M:%S}.000Z"


def _spot_request(
    backend: EC2Backend, params: Any, moto: Instance, tags: dict[str, dict[str, str]]
) -> None:
    options = params["InstanceMarketOptions"].get("SpotOptions", {})
    name = random_spot_request_id()
    request = _Filled(
        moto, backend, name, options.get("MaxPrice", ""), moto.image_id,
        options.get("SpotInstanceType", "one-time"), None, None, None, None, "", [], None,
        moto.instance_type, None, None, None, False, moto.subnet_id, tags, None,
        options.get("InstanceInterruptionBehavior"),
    )  # fmt: skip
    backend.spot_instance_requests[name] = request
    moto.lifecycle = "spot"
    moto.spot_instance_request_id = name  # type: ignore[attr-defined]  # moto writes what is there
