"""Decoding of what operators are shown: reports of reaper and audit, costs, pools, VMs beside the
clouds."""

from __future__ import annotations

import time
from typing import Any

from vmrunner.core.audit_rules import AuditFault, Survivor
from vmrunner.core.cost_report import CostKind, CostLine
from vmrunner.model import (
    TAG,
    Cost,
    Death,
    EmptyReason,
    Instance,
    Kind,
    Pool,
    PoolKind,
    PoolPlace,
    PoolSpec,
    Power,
    PriceSource,
    Ref,
    Resource,
    Scope,
    network_of,
)
from vmrunner.reaper.report import LineFate, LineOutcome, Report, ReportLine
from vmrunner.services.client.decoding import Document, instance, known, moment
from vmrunner.services.fleet import Fleet, FleetVm
from vmrunner.services.pools import PoolPlaceStatus, PoolStatus


def survivor(document: Document) -> Survivor:
    """Decode what is alive and should not be."""
    ref = None
    if document["ref"] is not None:
        ref = Ref(Scope.parse(document["scope"]), Kind(document["kind"]), document["ref"])
    return Survivor(
        fault=AuditFault(document["fault"]),
        instance=document["instance"],
        ref=ref,
        late=document["late"],
        message=document["message"],
    )


def cost_line(document: Document) -> CostLine:
    """Decode a line of a report of costs."""
    source = document["source"]
    return CostLine(
        what=CostKind(document["what"]),
        key=document["key"],
        cost=Cost(
            known=document["known_usd"],
            unpriced=document["unpriced"],
            final=document["final"],
            source=PriceSource(source) if source else None,
            at=moment(document["as_of"]),
        ),
        builds=document["builds"],
        vms=document["vms"],
        seconds=document["seconds"],
    )


def report(answer: Document) -> Report:
    """Decode a pass of the reaper."""
    return Report(
        lines=tuple(map(_line, answer["items"])),
        alarms=tuple(answer.get("alarms", ())),
        unread=tuple(answer.get("unread", ())),
    )


def _line(document: Document) -> ReportLine:
    values: dict[str, Any] = {name: document[name] for name in _LINE}
    fate, _, error = (document["outcome"] or "").partition(": ")
    return ReportLine(
        **values, reason=Death(document["reason"]), result=LineOutcome(LineFate(fate), error)
    )


_LINE = ("provider", "what", "kind", "id", "instance", "build", "age", "late", "cost")


def fleet(answer: Document) -> Fleet:
    """Decode VMs beside what the clouds show. Of a cloud's thing that no row names the id is told,
    not the tags."""
    here = time.time()
    vms = [FleetVm(_instance(item), here, _resource(item)) for item in answer["items"]]
    return Fleet(vms=vms, unread=tuple(answer.get("unread", ())))


def _instance(document: Document) -> Instance | None:
    return None if document["state"] is None else instance(document)


def _resource(document: Document) -> Resource | None:
    seen = document["cloud"]
    if seen is None:
        return None
    tags = {f"{TAG}instance": document["id"]}
    if (end := moment(seen["expires_at"])) is not None:
        tags[f"{TAG}expires-at"] = str(int(end))
    return Resource(
        ref=Ref(Scope.parse(seen["scope"]), Kind(seen["kind"]), seen["ref"]),
        power=Power(seen["power"]),
        created_at=moment(seen["created_at"]),
        tags=tags,
    )


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
    pool = Pool(
        spec=spec,
        shape="",
        revision=document["revision"],
        size=document["resized_to"],
        draining=document["draining"],
        named_at=moment(document["named_at"]) or 0.0,
    )
    converted = {
        "pool": pool,
        "empty_reason": EmptyReason(empty) if empty else None,
        # Servers of before do not tell.
        "by_place": tuple(_place(entry) for entry in document.get("places", ())),
    }
    return known(PoolStatus, {**document, **converted})


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
