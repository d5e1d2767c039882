"""Reports of reaper and audit, from documents."""

from __future__ import annotations

from typing import Any

from vmrunner.core.audit_rules import AuditFault, Survivor
from vmrunner.core.cost_report import CostKind, CostLine
from vmrunner.model import Cost, Death, Kind, PriceSource, Ref, Scope
from vmrunner.reaper.report import LineFate, LineOutcome, Report, ReportLine
from vmrunner.services.client.decoding import Document, moment


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
