"""Pools, from documents."""

from __future__ import annotations

from vmrunner.model import EmptyReason, Pool, PoolKind, PoolSpec, network_of
from vmrunner.services.pools import PoolStatus
from vmrunner.services.remote.decoding import Document, moment


def pool_status(document: Document) -> PoolStatus:
    """Decode one pool; of its shape what is shown of it."""
    empty, sizing = document["empty_reason"], document["sizing"]
    spec = PoolSpec(
        name=document["name"],
        provider=document["provider"],
        machine_type=document.get("machine_type"),  # servers of before do not tell
        container=document["container"],
        kind=PoolKind(document["kind"]),
        network=network_of(document["network"]),
        size=sizing["size"],
        schedule=tuple((one["cron"], one["size"]) for one in sizing["schedule"]),
        hit_rate=sizing["hit_rate"],
        least=sizing["min"],
        most=sizing["max"],
        ttl=document["ttl"],
        idle=document["idle"],
        usd_per_day=document["usd_per_day"],
    )
    return PoolStatus(
        pool=Pool(
            spec=spec,
            shape="",
            revision=document["revision"],
            size=document["resized_to"],
            draining=document["draining"],
            named_at=moment(document["named_at"]) or 0.0,
            want=document["want"],
        ),
        want=document["want"],
        have=document["have"],
        making=document["making"],
        claimed=document["claimed"],
        builds=document["builds"],
        hit_rate=document["hit_rate"],
        p50=document["p50"],
        p95=document["p95"],
        idle_usd_today=document["idle_usd_today"],
        empty_reason=EmptyReason(empty) if empty else None,
    )
