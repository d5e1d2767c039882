"""One RunInstances request: everything that makes the VM end, and ours, is in this very call."""

from __future__ import annotations

import math
import re
from typing import Any, Final

from vmrunner.errors import BadOrder
from vmrunner.model import Market, Order, tags_of
from vmrunner.providers.common.cloud_options import GiB
from vmrunner.providers.ec2.catalog import Ami
from vmrunner.providers.ec2.client import Answer
from vmrunner.providers.ec2.options import Ec2Options

USER_DATA: Final = 16 * 1024  # bytes, before the SDK encodes them

#: Only of these are CPU credits a thing, and `unlimited` their default: a bill without a limit.
_BURSTABLE: Final = re.compile(r"t\d")


def request(order: Order, options: Ec2Options, image: Ami) -> Answer:
    """The call's parameters: the same for the same order, so that its client token holds. Raises
    `BadOrder`."""
    if len(order.user_data) > USER_DATA:
        raise BadOrder(f"user-data: {len(order.user_data)} bytes, EC2 takes {USER_DATA}")
    offer = order.offer
    spot = offer.market is Market.SPOT
    pairs = {**options.tags, **tags_of(order)}
    tags = [{"Key": key, "Value": value} for key, value in pairs.items()]
    kinds = ["instance", "volume", "network-interface"] + ["spot-instances-request"] * spot
    parameters: Answer = {
        "ClientToken": order.instance,
        "MinCount": 1,
        "MaxCount": 1,
        "ImageId": offer.image,
        "InstanceType": offer.machine_type,
        "UserData": order.user_data,
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in kinds],
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "SubnetId": offer.place,
                "Groups": list(options.groups_for(order.network)),
                "AssociatePublicIpAddress": options.address == "public",
                "DeleteOnTermination": True,
            }
        ],
        "BlockDeviceMappings": disks(image, offer.disk),
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {
            "HttpEndpoint": "enabled",  # cloud-init needs it once
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,  # not from within a container
            "InstanceMetadataTags": "disabled",
        },
    }
    if spot:
        parameters["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {
                "SpotInstanceType": "one-time",
                "InstanceInterruptionBehavior": "terminate",
            },
        }
    if _BURSTABLE.match(offer.machine_type):
        parameters["CreditSpecification"] = {"CpuCredits": "standard"}
    if options.instance_profile:
        key = "Arn" if options.instance_profile.startswith("arn:") else "Name"
        parameters["IamInstanceProfile"] = {key: options.instance_profile}
    return parameters


def disks(image: Ami, size: int) -> list[dict[str, Any]]:
    """Every disk of the image, none of which outlives the VM; the root disk with at least `size`
    bytes."""
    made = []
    for mapping in image.mappings:
        if "Ebs" not in mapping:
            continue  # instance store: it dies with the machine anyway
        image_disk = mapping["Ebs"]
        ebs: dict[str, Any] = {"DeleteOnTermination": True, "Encrypted": True}
        least = int(image_disk.get("VolumeSize") or 0)
        if mapping.get("DeviceName") == image.root:
            ebs["VolumeSize"] = max(least, math.ceil(size / GiB))
        elif "SnapshotId" not in image_disk:
            ebs["VolumeSize"] = least
        made.append({"DeviceName": mapping["DeviceName"], "Ebs": ebs})
    return made
