"""The nouns. Frozen values, no I/O; every time is epoch seconds as a float, every size is bytes.

They are imported from here, which loads only the files of those that are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vmrunner.model.allow_list import AllowList, NetworkPolicy, network_of
    from vmrunner.model.build_choice import BuildChoice
    from vmrunner.model.builds import (
        LOCAL_TENANT,
        RUNC,
        RUNSC,
        RUNTIMES,
        STARTING,
        Access,
        ArtifactRule,
        BuildEvent,
        BuildRecord,
        BuildSpec,
        Chunk,
        ChunkPlace,
        Instance,
        Limits,
        LogLine,
        Phase,
        Step,
    )
    from vmrunner.model.caches import CacheOutcome, CacheRule, CacheScope, FoundCache, StoredCache
    from vmrunner.model.choices import MOST_VMS, Network, NotifyEvent, PoolKind
    from vmrunner.model.cloud import (
        MORTAL,
        SERVING,
        TAG,
        Address,
        ContainerEnd,
        Fate,
        Finding,
        Identity,
        Key,
        Kind,
        Level,
        Market,
        Offer,
        Order,
        Outcome,
        Page,
        Power,
        Ref,
        Resource,
        Role,
        Scope,
        Seen,
        Shape,
        Spec,
        Trait,
        tags_of,
    )
    from vmrunner.model.images import ImageState, MadeImage
    from vmrunner.model.money import (
        NO_COST,
        UNKNOWN_RATE,
        Bill,
        Budget,
        BudgetAction,
        BudgetPeriod,
        BudgetState,
        Cost,
        Price,
        PriceSource,
        Rate,
    )
    from vmrunner.model.notifications import TRACES, EndpointStatus, Notification, NotifyEndpoint
    from vmrunner.model.objects import ObjectKind, ObjectState, StoredObject
    from vmrunner.model.pools import EmptyReason, Pool, PoolPlace, PoolSpec
    from vmrunner.model.principals import (
        UNFILTERED,
        Principal,
        Token,
        TokenQuota,
        TokenScope,
        tenant_labels,
    )
    from vmrunner.model.processes import Process
    from vmrunner.model.sandboxes import (
        CommandEnd,
        CommandOrder,
        CommandOutput,
        CommandSummary,
        FileEntry,
        StreamName,
    )
    from vmrunner.model.states import (
        DYING,
        BuildState,
        Death,
        EventKind,
        InstanceState,
        Reason,
        Result,
        Start,
    )
    from vmrunner.model.usage import NO_USAGE, BuildUsage, HostUsage

__all__ = [
    "DYING",
    "LOCAL_TENANT",
    "MORTAL",
    "MOST_VMS",
    "NO_COST",
    "NO_USAGE",
    "RUNC",
    "RUNSC",
    "RUNTIMES",
    "SERVING",
    "STARTING",
    "TAG",
    "TRACES",
    "UNFILTERED",
    "UNKNOWN_RATE",
    "Access",
    "Address",
    "AllowList",
    "ArtifactRule",
    "Bill",
    "Budget",
    "BudgetAction",
    "BudgetPeriod",
    "BudgetState",
    "BuildChoice",
    "BuildEvent",
    "BuildRecord",
    "BuildSpec",
    "BuildState",
    "BuildUsage",
    "CacheOutcome",
    "CacheRule",
    "CacheScope",
    "Chunk",
    "ChunkPlace",
    "CommandEnd",
    "CommandOrder",
    "CommandOutput",
    "CommandSummary",
    "ContainerEnd",
    "Cost",
    "Death",
    "EmptyReason",
    "EndpointStatus",
    "EventKind",
    "Fate",
    "FileEntry",
    "Finding",
    "FoundCache",
    "HostUsage",
    "Identity",
    "ImageState",
    "Instance",
    "InstanceState",
    "Key",
    "Kind",
    "Level",
    "Limits",
    "LogLine",
    "MadeImage",
    "Market",
    "Network",
    "NetworkPolicy",
    "Notification",
    "NotifyEndpoint",
    "NotifyEvent",
    "ObjectKind",
    "ObjectState",
    "Offer",
    "Order",
    "Outcome",
    "Page",
    "Phase",
    "Pool",
    "PoolKind",
    "PoolPlace",
    "PoolSpec",
    "Power",
    "Price",
    "PriceSource",
    "Principal",
    "Process",
    "Rate",
    "Reason",
    "Ref",
    "Resource",
    "Result",
    "Role",
    "Scope",
    "Seen",
    "Shape",
    "Spec",
    "Start",
    "Step",
    "StoredCache",
    "StoredObject",
    "StreamName",
    "Token",
    "TokenQuota",
    "TokenScope",
    "Trait",
    "network_of",
    "tags_of",
    "tenant_labels",
]

#: The files that they are in, each after those that it needs itself.
_FILES: Final = (
    "processes", "choices", "allow_list", "states", "cloud", "money", "usage", "caches", "builds",
    "build_choice", "images", "objects", "pools", "principals", "notifications", "sandboxes",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load a noun when it is first used: the configuration needs few, and to make a dataclass takes
    a millisecond."""
    if name in __all__:
        for file in _FILES:
            nouns = vars(importlib.import_module(f"{__name__}.{file}"))
            if name in nouns:
                return globals().setdefault(name, nouns[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
