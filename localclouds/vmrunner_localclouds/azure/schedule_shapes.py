"""Requests to Microsoft.ComputeSchedule: its client has no types of JSON, so these are ours. A test
holds them against the client's models."""

from __future__ import annotations

from typing import Required

from azure.mgmt.computeschedule.models import DeadlineType, OptimizationPreference
from typing_extensions import TypedDict


class SubmittedSchedule(TypedDict, total=False):
    deadline: str
    deadLine: str
    timezone: str
    timeZone: str
    deadlineType: Required[DeadlineType | str]


class SubmittedRetries(TypedDict, total=False):
    retryCount: int
    retryWindowInMinutes: int


class SubmittedExecution(TypedDict, total=False):
    optimizationPreference: OptimizationPreference | str
    retryPolicy: SubmittedRetries


class SubmittedResources(TypedDict, total=False):
    ids: Required[list[str]]


class SubmitRequest(TypedDict, total=False):
    """Body of virtualMachinesSubmitDeallocate and its like."""

    schedule: Required[SubmittedSchedule]
    executionParameters: Required[SubmittedExecution]
    resources: Required[SubmittedResources]
    correlationid: Required[str]


class OperationsRequest(TypedDict, total=False):
    """Body of virtualMachinesGetOperationStatus and virtualMachinesCancelOperations."""

    operationIds: Required[list[str]]
    correlationid: Required[str]
