"""A VM's scheduling: what the service refuses, what it fills in, and when it ends a VM."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

from vmrunner_localclouds.gce import timestamps
from vmrunner_localclouds.gce.api_error import GceRefusal, invalid
from vmrunner_localclouds.gce.discovery import Json
from vmrunner_localclouds.gce.vendor_limits import LIMITS

LEAST: Final = LIMITS["seconds of a VM's shortest run"].value
LONGEST_RUN: Final = LIMITS["seconds of a VM's longest run"].value


def filled(scheduling: Json, now: float) -> Json:
    """The scheduling that a resource shows. Raises `GceRefusal`."""
    spot = scheduling.get("provisioningModel") == "SPOT" or bool(scheduling.get("preemptible"))
    _check_times(scheduling, now)
    _check_action(scheduling, spot=spot)
    if spot:
        _check_spot(scheduling)
    defaults: Json = {
        "onHostMaintenance": "TERMINATE" if spot else "MIGRATE",
        "automaticRestart": not spot,
        "preemptible": spot,
        "provisioningModel": "SPOT" if spot and "provisioningModel" in scheduling else "STANDARD",
    }
    return defaults | scheduling | {"preemptible": spot}


def check_type(scheduling: Json, kind: str, immovable: Collection[str]) -> None:
    """Raises `GceRefusal` for what this machine type does not do while its host is maintained."""
    stays = scheduling["onHostMaintenance"] == "TERMINATE"
    if stays and kind.startswith("e2-") and not scheduling["preemptible"]:
        text = (
            "e2 instances do not support onHostMaintenance=TERMINATE unless they are preemptible."
        )
        raise GceRefusal(400, "badRequest", text)
    if not stays and kind in immovable:
        text = f"{kind} instances do not support live migration."
        raise GceRefusal(400, "badRequest", text)


def deadline(scheduling: Json, running_since: float | None) -> float:
    """Epoch seconds; inf: none, or it counts only once the VM runs."""
    if "terminationTime" in scheduling:
        return timestamps.read(scheduling["terminationTime"])
    if "maxRunDuration" in scheduling and running_since is not None:
        return running_since + seconds(scheduling["maxRunDuration"])
    return math.inf


def seconds(duration: Json) -> float:
    return int(duration.get("seconds", "0")) + int(duration.get("nanos", 0)) / 1e9


def _check_times(scheduling: Json, now: float) -> None:
    if "terminationTime" in scheduling and "maxRunDuration" in scheduling:
        text = "Only one of terminationTime and maxRunDuration may be specified."
        raise invalid("resource.scheduling", "", text)
    if "terminationTime" in scheduling:
        at = scheduling["terminationTime"]
        try:
            remaining = timestamps.read(at) - now
        except ValueError:
            text = "Must be a valid RFC 3339 timestamp."
            raise invalid("resource.scheduling.terminationTime", at, text) from None
        if not LEAST <= remaining <= LONGEST_RUN:
            text = "Must be from 30 seconds to 120 days in the future."
            raise invalid("resource.scheduling.terminationTime", at, text)
    if (
        "maxRunDuration" in scheduling
        and not LEAST <= seconds(scheduling["maxRunDuration"]) <= LONGEST_RUN
    ):
        text = "Must be from 30 seconds to 120 days."
        value = scheduling["maxRunDuration"].get("seconds", "0")
        raise invalid("resource.scheduling.maxRunDuration", value, text)


def _check_action(scheduling: Json, *, spot: bool) -> None:
    timed = "terminationTime" in scheduling or "maxRunDuration" in scheduling
    action = scheduling.get("instanceTerminationAction")
    if timed and not action:
        text = "It must be specified with terminationTime or maxRunDuration."
        raise invalid("resource.scheduling.instanceTerminationAction", "", text)
    if action and not timed and not spot:
        text = "It needs a Spot VM, or terminationTime or maxRunDuration."
        raise invalid("resource.scheduling.instanceTerminationAction", action, text)


def _check_spot(scheduling: Json) -> None:
    if scheduling.get("onHostMaintenance", "TERMINATE") != "TERMINATE":
        text = "Spot VMs must have onHostMaintenance set to TERMINATE."
        raise invalid(
            "resource.scheduling.onHostMaintenance", scheduling["onHostMaintenance"], text
        )
    if scheduling.get("automaticRestart"):
        text = "Spot VMs cannot be restarted automatically."
        raise invalid("resource.scheduling.automaticRestart", "true", text)
    if scheduling.get("preemptible") is False:
        raise invalid("resource.scheduling.preemptible", "false", "A Spot VM is preemptible.")
