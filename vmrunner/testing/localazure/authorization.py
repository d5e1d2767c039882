"""Rights of whoever asks, as Microsoft.Authorization tells them: all, but for what the cloud's
faults deny."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmrunner.testing.localazure import faults
from vmrunner.testing.localazure.faults import FailedLater
from vmrunner.testing.localazure.operations import ArmAnswer
from vmrunner.testing.localazure.reads import group_of
from vmrunner.testing.localazure.requests import AzureRequest
from vmrunner.testing.localazure.resource_ids import TYPES

if TYPE_CHECKING:
    from vmrunner.testing.localazure.cloud import LocalAzure


def permissions(cloud: LocalAzure, request: AzureRequest, _: FailedLater | None) -> ArmAnswer:
    """Tell the rights in a group."""
    group_of(cloud, request)
    kinds = {kind.rpartition("/")[2]: kind for kind in TYPES}
    denied = []
    for action in sorted(cloud.faults.denied):
        short, what = action.split(".", 1)
        denied.append(faults.right(kinds.get(short, short), what))
    rule = {"actions": ["*"], "notActions": denied, "dataActions": [], "notDataActions": []}
    return ArmAnswer(200, {"value": [rule]})
