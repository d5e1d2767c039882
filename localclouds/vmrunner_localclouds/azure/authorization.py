"""Permissions of a caller, as Microsoft.Authorization lists them: all, but for what the cloud's
faults deny; and locks on a group, by which nothing in it is deleted by any caller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmrunner_localclouds.azure import faults
from vmrunner_localclouds.azure.api_error import ArmRefusal
from vmrunner_localclouds.azure.faults import FailedLater
from vmrunner_localclouds.azure.operations import ArmAnswer
from vmrunner_localclouds.azure.reads import group_of
from vmrunner_localclouds.azure.requests import AzureRequest
from vmrunner_localclouds.azure.resource_ids import DEFINITION, TYPES, VERSION

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.cloud import LocalAzure


def permissions(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    """Answer with the permissions in a group."""
    group_of(cloud, request)
    kinds = {kind.rpartition("/")[2]: kind for kind in TYPES}
    kinds |= {"definitions": DEFINITION, "versions": VERSION}
    denied = []
    for action in sorted(cloud.faults.denied):
        short, what = action.split(".", 1)
        denied.append(faults.permission_to(kinds.get(short, short), what))
    rule = {"actions": ["*"], "notActions": denied, "dataActions": [], "notDataActions": []}
    return ArmAnswer(200, {"value": [rule]})


def locks(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    """Answer with the locks of a group."""
    group = group_of(cloud, request)
    level = cloud.locks.get(group["name"].lower())
    lock = {
        "id": f"{group['id']}/providers/Microsoft.Authorization/locks/keep",
        "name": "keep",
        "type": "Microsoft.Authorization/locks",
        "properties": {"level": level},
    }
    return ArmAnswer(200, {"value": [lock] if level else []})


def check_locks(cloud: LocalAzure, request: AzureRequest) -> None:
    """Raises `ArmRefusal` for a deletion in a group with a lock."""
    group = request.path.group
    if group.lower() in cloud.locks:
        where = f"/subscriptions/{cloud.subscription}/resourceGroups/{group}"
        text = f"The scope '{request.path.id}' cannot perform delete operation because following "
        text += f"scope(s) are locked: '{where}'. Please remove the lock and try again."
        raise ArmRefusal(409, "ScopeLocked", text)
