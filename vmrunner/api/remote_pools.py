"""Pools, from documents."""

from __future__ import annotations

from vmrunner.model import EmptyReason, Pool, PoolKind, PoolPlace, PoolSpec, network_of
from vmrunner.services.client.decoding import Document, moment
from vmrunner.services.pools import PoolPlaceStatus, PoolStatus


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
        schedule=tuple((entry["cron"], entry["size"]) for entry in sizing["schedule"]),
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
        # Servers of before do not tell.
        by_place=tuple(_place(entry) for entry in document.get("places", ())),
    )


def _place(document: Document) -> PoolPlaceStatus:
    empty = document["empty_reason"]
    state = PoolPlace(
        place=document["place"],
        want=document["want"],
        empty_reason=EmptyReason(empty) if empty else None,
        failures=document["failures"],
        failing_since=moment(document["failing_since"]),
    )
    return PoolPlaceStatus(state=state, have=document["have"], making=document["making"])
