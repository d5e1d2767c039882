"""Documents: builds, instances and the rest for programs, as `-o json` and the HTTP API give them.
Times are RFC 3339 in UTC, durations seconds, sizes bytes, costs USD."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from vmrunner.model import (
    AllowList,
    ArtifactRule,
    BuildEvent,
    BuildRecord,
    BuildSpec,
    CacheRule,
    CommandSummary,
    FileEntry,
    Instance,
    LogLine,
    Start,
    Step,
    Token,
)
from vmrunner.services import build_history

if TYPE_CHECKING:
    from vmrunner.core.audit_rules import Survivor
    from vmrunner.core.cost_report import CostLine
    from vmrunner.ledger.actions import Action
    from vmrunner.model import BudgetState, EndpointStatus, Finding
    from vmrunner.reaper.report import ReportLine
    from vmrunner.reaper.retention import Removal
    from vmrunner.services.artifacts import Artifact
    from vmrunner.services.nodes import Node
    from vmrunner.services.pools import PoolPlaceStatus, PoolStatus

_FIRST: Final = -62_135_596_800.0  # the year 1
_LAST: Final = 253_402_300_799.0  # the year 9999
SCHEMA_VERSION: Final = 1
_NO_UTF8: Final = re.compile("[\ud800-\udfff]")


def iso(at: float | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def shown(text: str) -> str:
    """Return it with what is no UTF-8 replaced: a guest calls its files as it likes."""
    return _NO_UTF8.sub("\ufffd", text)


def usd(amount: float | None) -> float | None:
    """An amount to the millionth; None: unknown."""
    return None if amount is None else round(amount, 6)


def build_document(build: BuildRecord, start: Start | None = None) -> dict[str, Any]:
    """A build for programs. `start`: how it came by its VM. Times are RFC 3339, durations seconds,
    sizes bytes, cost USD."""
    return {
        "id": build.id,
        "name": build.spec.name or None,
        "state": build.state.value,
        "result": build.result.value if build.result else None,
        "reason": build.reason.value if build.reason else None,
        "exit_code": build.exit_code,
        "message": build.message or None,
        "attempt": build.attempt,
        "instance": build.instance,
        "start": start.value if start else None,
        "actor": build.actor or None,
        "actor_name": build.actor_name or None,
        "created_at": iso(build.created_at),
        "finished_at": iso(build.finished_at),
        "hold_until": iso(build.hold_until),
        "phases": [
            {
                "state": phase.state.value,
                "started_at": iso(phase.started),
                "ended_at": iso(phase.ended),
                "seconds": None if phase.ended is None else round(phase.ended - phase.started, 3),
            }
            for phase in build.phases
        ],
        "cost": usd(build.cost.usd),
        "cost_final": build.cost.final,
        "cost_source": build.cost.source.value if build.cost.source else None,
        "cost_as_of": iso(build.cost.at),
        "usage": asdict(build.usage),
        "foreground": build.submitter is not None or build.lease_until is not None,
        "cancel": build.cancel.value if build.cancel else None,
    } | spec_document(build.spec)


def spec_document(spec: BuildSpec) -> dict[str, Any]:
    """All that a build was asked for, by the names that it is asked for with."""
    document = {item.name: _plain(getattr(spec, item.name)) for item in fields(spec)}
    return document | {"name": spec.name or None, "container_runtime": document.pop("runtime")}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum | AllowList):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Step):
        return step_document(value)
    if isinstance(value, ArtifactRule):
        return {"path": value.glob, "always": value.always}
    if isinstance(value, CacheRule):
        return {"key": value.key, "path": value.path, "fallback": list(value.fallback)}
    return value


def step_document(step: Step) -> dict[str, Any]:
    document: dict[str, Any] = {"name": step.title}
    document |= {"run": step.run} if step.run is not None else {"argv": list(step.argv)}
    if step.timeout is not None:
        document["timeout"] = step.timeout
    if step.env:
        document["env"] = dict(step.env)
    return document


def instance_document(row: Instance) -> dict[str, Any]:
    """An instance for programs."""
    return {
        "id": row.id,
        "build": row.build,
        "attempt": row.attempt,
        "state": row.state.value,
        "provider": row.provider,
        "kind": row.scope.kind,
        "account": row.scope.account,
        "place": row.scope.place,
        "machine_type": row.offer.machine_type,
        "market": row.offer.market.value,
        "image": row.offer.image or None,
        "ref": row.ref.id if row.ref else None,
        "address": str(row.address) if row.address else None,
        "created_at": iso(row.created_at),
        "deadline": iso(row.deadline),
        "gone_at": iso(row.gone_at),
        "death": row.death.value if row.death else None,
        "message": row.message or None,
        "deletes": row.deletes,
        "pool": row.pool,
        "start": row.start.value if row.start else None,
        "due": iso(row.due),
        "usd_hour": row.rate.usd_hour,
        "price_source": row.rate.source.value,
        "price_as_of": iso(row.rate.at),
    }


def event_document(event: BuildEvent) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "time": iso(event.time),
        "kind": event.kind,
        "data": dict(event.data),
    }


def ended_document(build: BuildRecord, events: Iterable[BuildEvent]) -> dict[str, Any]:
    """A build with what its steps came to, in the last attempt; the one in which it ended
    otherwise than well is `failed_step`."""
    listed = list(events)
    runs = build_history.runs(listed)
    last = {run.index: run for run in runs if run.attempt == max(r.attempt for r in runs)}
    culprit = build_history.culprit(build, listed)
    return build_document(build) | {
        "steps": [
            step_document(step)
            | {
                "started_at": iso(last[n].started) if n in last else None,
                "ended_at": iso(last[n].ended) if n in last else None,
                "exit_code": last[n].exit_code if n in last else None,
            }
            for n, step in enumerate(build.spec.steps)
        ],
        "failed_step": None if culprit is None else build_history.title(build, culprit.index or 0),
    }


def cost_document(line: CostLine) -> dict[str, Any]:
    """A line of a report of costs; `usd` null: a price in it is unknown, and `known_usd` is what
    the rest of it cost."""
    cost = line.cost
    return {
        "what": line.what.value,
        "key": line.key,
        "usd": usd(cost.usd),
        "known_usd": usd(cost.known),
        "unpriced": cost.unpriced,
        "final": cost.final,
        "source": cost.source.value if cost.source else None,
        "as_of": iso(cost.at),
        "builds": line.builds,
        "vms": line.vms,
        "seconds": round(line.seconds, 3),
    }


def pool_place_document(entry: PoolPlaceStatus) -> dict[str, Any]:
    """A pool at one place: a host's scope, or "" where all of its VMs are within all's reach."""
    state = entry.state
    return {
        "place": state.place,
        "want": state.want,
        "have": entry.have,
        "making": entry.making,
        "empty_reason": state.empty_reason.value if state.empty_reason else None,
        "failures": state.failures,
        "failing_since": iso(state.failing_since),
    }


def pool_document(entry: PoolStatus) -> dict[str, Any]:
    """A pool for programs: durations seconds, cost USD."""
    pool = entry.pool
    return {
        "name": pool.name,
        "kind": pool.spec.kind.value,
        "want": entry.want,
        "have": entry.have,
        "making": entry.making,
        "claimed": entry.claimed,
        "hit_rate": entry.hit_rate,
        "p50": entry.p50,
        "p95": entry.p95,
        "idle_usd_today": round(entry.idle_usd_today, 6),
        "empty_reason": entry.empty_reason.value if entry.empty_reason else None,
        "places": [pool_place_document(place) for place in entry.by_place],
        "provider": pool.spec.provider,
        "machine_type": pool.spec.machine_type,
        "container": pool.spec.container,
        "network": pool.spec.network.value,
        "sizing": {
            "size": pool.spec.size,
            "schedule": [{"cron": cron, "size": size} for cron, size in pool.spec.schedule],
            "hit_rate": pool.spec.hit_rate,
            "min": pool.spec.least,
            "max": pool.spec.most,
        },
        "builds": entry.builds,
        "ttl": pool.spec.ttl,
        "idle": pool.spec.idle,
        "usd_per_day": pool.spec.usd_per_day,
        "resized_to": pool.size,
        "draining": pool.draining,
        "revision": pool.revision,
        "named_at": iso(pool.named_at),
    }


def shown_document(
    build: BuildRecord,
    instances: Iterable[Instance],
    events: Iterable[BuildEvent],
    waiting: str | None,
    artifacts: Iterable[Artifact],
) -> dict[str, Any]:
    """One build with all that is known of it, as `show` has it. `waiting`: why it is queued."""
    rows, listed = list(instances), list(events)
    start = start_of(build, rows)
    return ended_document(build, listed) | {
        "start": start.value if start else None,
        "waiting": waiting,
        "instances": [instance_document(row) for row in rows],
        "events": [event_document(event) for event in listed],
        "artifacts_back": [artifact_document(artifact) for artifact in artifacts],
    }


def start_of(build: BuildRecord, rows: Iterable[Instance]) -> Start | None:
    """The start of the build's VM: fresh, out of a pool or from a template."""
    return next((row.start for row in rows if row.id == build.instance), None)


def artifact_document(artifact: Artifact) -> dict[str, Any]:
    return {"path": artifact.path, "size": artifact.size}


def log_line_document(line: LogLine) -> dict[str, Any]:
    return {"seq": line.seq, "time": iso(line.time), "text": line.raw.decode(errors="replace")}


def verdict_document(line: ReportLine) -> dict[str, Any]:
    """A decision of the reaper about one thing."""
    return {
        "provider": line.provider,
        "what": line.what,
        "kind": line.kind,
        "id": line.id,
        "reason": line.reason.value,
        "instance": line.instance,
        "build": line.build,
        "age": line.age,
        "late": line.late,
        "cost": usd(line.cost),
        "outcome": line.outcome or None,
    }


def survivor_document(found: Survivor) -> dict[str, Any]:
    """A resource that is alive and should not be."""
    return {
        "fault": found.fault.value,
        "instance": found.instance,
        "ref": found.ref.id if found.ref else None,
        "kind": found.ref.kind.value if found.ref else None,
        "scope": str(found.ref.scope) if found.ref else None,
        "late": found.late,
        "message": found.message,
    }


def removal_document(removal: Removal) -> dict[str, Any]:
    return {
        "what": removal.what,
        "count": removal.count,
        "bytes": removal.size,
        "failed": removal.failed,
    }


def finding_document(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "level": finding.level.value,
        "message": finding.message,
        "fix": finding.fix or None,
    }


def node_document(node: Node) -> dict[str, Any]:
    return {
        "id": node.id,
        "kind": node.kind,
        "machine": node.machine,
        "pid": node.pid,
        "joined_at": iso(node.joined_at),
        "seen_at": iso(node.seen_at),
        "alive": node.alive,
        "reaps": node.reaps,
        "providers": list(node.providers),
        "builds": node.builds,
        "version": node.version,
        "outdated": node.outdated,
    }


def action_document(action: Action) -> dict[str, Any]:
    return {
        "time": iso(action.at),
        "actor": action.actor,
        "verb": action.verb,
        "subject": action.subject,
        "detail": action.detail or None,
    }


def token_document(token: Token) -> dict[str, Any]:
    """A token without its secret, which cannot be shown again."""
    quota = token.quota
    return {
        "id": token.id,
        "name": token.name,
        "scopes": sorted(token.scopes),
        "labels": dict(token.labels),
        "quota": {
            "builds": quota.builds,
            "max_ttl": quota.max_ttl,
            "providers": None if quota.providers is None else list(quota.providers),
            "usd_per_day": quota.usd_per_day,
            "network": None if quota.network is None else quota.network.value,
            "docker": quota.docker,
            "images": None if quota.images is None else list(quota.images),
        },
        "actor": token.actor,
        "created_at": iso(token.created_at),
        "created_by": token.created_by,
        "expires_at": iso(token.expires_at),
        "revoked_at": iso(token.revoked_at),
    }


def budget_document(state: BudgetState) -> dict[str, Any]:
    """A budget, and how much of it is spent, or held for VMs that are there."""
    return {
        "name": state.budget.name,
        "period": state.budget.period.value,
        "match": dict(state.budget.match),
        "action": state.budget.action.value,
        "usd": state.budget.usd,
        "held_usd": round(state.held, 6),
        "since": iso(state.start),
    }


def endpoint_document(status: EndpointStatus) -> dict[str, Any]:
    """A webhook, and how it fares."""
    return {
        "name": status.name,
        "named_at": iso(status.named_at),
        "waiting": status.waiting,
        "oldest_at": iso(status.oldest),
        "delivered_at": iso(status.delivered_at),
        "failures": status.failures,
        "error": status.error or None,
        "given_up": status.given_up,
        "given_up_at": iso(status.given_up_at),
    }


def envelope(kind: str, items: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Documents in their stable outer shape."""
    return {"schema_version": SCHEMA_VERSION, "kind": kind, "items": list(items)}


def command_document(command: CommandSummary) -> dict[str, Any]:
    """A command of a sandbox."""
    end = command.end
    return {
        "id": shown(command.id),
        "title": shown(command.title),
        "state": "running" if end is None else "ended",
        "exit_code": None if end is None else end.exit_code,
        "timed_out": end is not None and end.timed_out,
    }


def file_document(entry: FileEntry) -> dict[str, Any]:
    """A file of a sandbox."""
    return {
        "name": shown(entry.name),
        "path": shown(entry.path),
        "kind": shown(entry.kind),
        "size": entry.size,
        "mode": f"{entry.mode:04o}",
        "modified_at": iso(min(max(entry.modified, _FIRST), _LAST)),
    }
