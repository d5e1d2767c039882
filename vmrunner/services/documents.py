"""Documents: builds, instances and the rest for programs, as `-o json` and the HTTP API give them.
Times are RFC 3339 in UTC, durations seconds, sizes bytes, costs USD."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeVar, overload

from vmrunner.lib import units
from vmrunner.model import AllowList
from vmrunner.services import build_history

if TYPE_CHECKING:
    from vmrunner.core.audit_rules import Survivor
    from vmrunner.core.cost_report import CostLine
    from vmrunner.ledger.actions import Action
    from vmrunner.model import (
        BudgetState,
        BuildEvent,
        BuildRecord,
        BuildSpec,
        CommandSummary,
        EndpointStatus,
        FileEntry,
        Finding,
        Instance,
        LogLine,
        NetworkPolicy,
        Start,
        Step,
        Token,
    )
    from vmrunner.reaper.report import ReportLine
    from vmrunner.reaper.retention import Removal
    from vmrunner.services import document_types as types
    from vmrunner.services.artifacts import Artifact
    from vmrunner.services.junit_reports import ReportedTests
    from vmrunner.services.nodes import Node
    from vmrunner.services.pools import PoolPlaceStatus, PoolStatus

D = TypeVar("D")

_FIRST: Final = -62_135_596_800.0  # the year 1
_LAST: Final = 253_402_300_799.0  # the year 9999
SCHEMA_VERSION: Final = 1
_NO_UTF8: Final = re.compile("[\ud800-\udfff]")


@overload
def iso(at: float) -> str: ...
@overload
def iso(at: float | None) -> str | None: ...
def iso(at: float | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond."""
    return None if at is None else _iso(at)


@lru_cache(
    maxsize=8192
)  # a phase begins when the one before it ends, and lists are asked for again
def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def shown(text: str) -> str:
    """Return it with what is no UTF-8 replaced: a guest calls its files as it likes."""
    return _NO_UTF8.sub("\ufffd", text)


@overload
def usd(amount: float) -> float: ...
@overload
def usd(amount: float | None) -> float | None: ...
def usd(amount: float | None) -> float | None:
    """An amount to the millionth; None: unknown."""
    return None if amount is None else round(amount, 6)


def build_document(build: BuildRecord, start: Start | None = None) -> types.BuildDocument:
    """A build for programs. `start`: how it came by its VM. Times are RFC 3339, durations seconds,
    sizes bytes, cost USD."""
    return {
        "id": build.id,
        "name": build.spec.name or None,
        "state": build.state,
        "result": build.result,
        "reason": build.reason,
        "exit_code": build.exit_code,
        "message": build.message or None,
        "attempt": build.attempt,
        "instance": build.instance,
        "start": start,
        "actor": build.actor or None,
        "actor_name": build.actor_name or None,
        "created_at": iso(build.created_at),
        "finished_at": iso(build.finished_at),
        "hold_until": iso(build.hold_until),
        "phases": [
            {
                "state": phase.state,
                "started_at": iso(phase.started),
                "ended_at": iso(phase.ended),
                "seconds": None if phase.ended is None else round(phase.ended - phase.started, 3),
            }
            for phase in build.phases
        ],
        "cost": usd(build.cost.usd),
        "cost_final": build.cost.final,
        "cost_source": build.cost.source,
        "cost_as_of": iso(build.cost.at),
        "usage": {
            "memory_peak": build.usage.memory_peak,
            "cpu_seconds": build.usage.cpu_seconds,
            "disk_read": build.usage.disk_read,
            "disk_written": build.usage.disk_written,
            "network_received": build.usage.network_received,
            "network_sent": build.usage.network_sent,
            "vm_cpu_seconds": build.usage.vm_cpu_seconds,
            "vm_disk": build.usage.vm_disk,
        },
        "foreground": build.submitter is not None or build.lease_until is not None,
        "cancel": build.cancel,
        **spec_document(build.spec),
    }


def spec_document(spec: BuildSpec) -> types.SpecDocument:
    """All that a build was asked for, by the names that it is asked for with."""
    return {
        "steps": [step_document(step) for step in spec.steps],
        "provider": spec.provider,
        "container": spec.container,
        "timeout": spec.timeout,
        "ttl": spec.ttl,
        "image": spec.image,
        "bootstrap": spec.bootstrap,
        "docker": spec.docker,
        "privileged": spec.privileged,
        "source": spec.source,
        "env": dict(spec.env),
        "secrets": list(spec.secrets),
        "registry_secret": spec.registry_secret,
        "artifacts": [{"path": rule.glob, "always": rule.always} for rule in spec.artifacts],
        "caches": [
            {"key": rule.key, "path": rule.path, "fallback": list(rule.fallback)}
            for rule in spec.caches
        ],
        "labels": dict(spec.labels),
        "queue_timeout": spec.queue_timeout,
        "keep_on_failure": spec.keep_on_failure,
        "network": network_document(spec.network),
        "name": spec.name or None,
        "cpus": spec.cpus,
        "memory": spec.memory,
        "disk": spec.disk,
        "spot": spec.spot,
        "retry_on_loss": spec.retry_on_loss,
        "priority": spec.priority,
        "keep_logs": spec.keep_logs,
        "idempotency_key": spec.idempotency_key,
        "sandbox_ttl": spec.sandbox_ttl,
        "container_runtime": spec.runtime,
    }


def network_document(policy: NetworkPolicy) -> types.NetworkDocument:
    return {"allow": list(policy.allow)} if isinstance(policy, AllowList) else policy


def step_document(step: Step) -> types.StepDocument:
    document: types.StepDocument = {"name": step.title}
    if step.run is not None:
        document["run"] = step.run
    else:
        document["argv"] = list(step.argv)
    if step.timeout is not None:
        document["timeout"] = units.duration(step.timeout, "timeout")
    if step.env:
        document["env"] = dict(step.env)
    return document


def instance_document(row: Instance) -> types.InstanceDocument:
    """An instance for programs."""
    return {
        "id": row.id,
        "build": row.build,
        "attempt": row.attempt,
        "state": row.state,
        "provider": row.provider,
        "kind": row.scope.kind,
        "account": row.scope.account,
        "place": row.scope.place,
        "machine_type": row.offer.machine_type,
        "market": row.offer.market,
        "image": row.offer.image or None,
        "container": row.container,
        "ref": row.ref.id if row.ref else None,
        "address": str(row.address) if row.address else None,
        "created_at": iso(row.created_at),
        "deadline": iso(row.deadline),
        "gone_at": iso(row.gone_at),
        "death": row.death,
        "message": row.message or None,
        "deletes": row.deletes,
        "pool": row.pool,
        "start": row.start,
        "due": iso(row.due),
        "usd_hour": row.rate.usd_hour,
        "price_source": row.rate.source,
        "price_as_of": iso(row.rate.at),
    }


def event_document(event: BuildEvent) -> types.EventDocument:
    return {
        "seq": event.seq,
        "time": iso(event.time),
        "kind": event.kind,
        "data": dict(event.data),
    }


def listed_document(
    build: BuildRecord, start: Start | None, waiting: str | None
) -> types.ListedBuildDocument:
    """A build in a list. `waiting`: why it is queued."""
    return {**build_document(build, start), "waiting": waiting}


def ended_document(build: BuildRecord, events: Iterable[BuildEvent]) -> types.EndedBuildDocument:
    """A build with what its steps came to, in the last attempt; the one in which it ended
    otherwise than well is `failed_step`."""
    listed = list(events)
    runs = build_history.runs(listed)
    last = {run.index: run for run in runs if run.attempt == max(r.attempt for r in runs)}
    culprit = build_history.culprit(build, listed)
    return {
        **build_document(build),
        "steps": [
            {
                **step_document(step),
                "started_at": iso(last[n].started) if n in last else None,
                "ended_at": iso(last[n].ended) if n in last else None,
                "exit_code": last[n].exit_code if n in last else None,
            }
            for n, step in enumerate(build.spec.steps)
        ],
        "failed_step": None if culprit is None else build_history.title(build, culprit.index or 0),
    }


def cost_document(line: CostLine) -> types.CostDocument:
    """A line of a report of costs; `usd` null: a price in it is unknown, and `known_usd` is what
    the rest of it cost."""
    cost = line.cost
    return {
        "what": line.what,
        "key": line.key,
        "usd": usd(cost.usd),
        "known_usd": usd(cost.known),
        "unpriced": cost.unpriced,
        "final": cost.final,
        "source": cost.source,
        "as_of": iso(cost.at),
        "builds": line.builds,
        "vms": line.vms,
        "seconds": round(line.seconds, 3),
    }


def pool_place_document(entry: PoolPlaceStatus) -> types.PoolPlaceDocument:
    """A pool at one place: a host's scope, or "" where all of its VMs are within all's reach."""
    state = entry.state
    return {
        "place": state.place,
        "want": state.want,
        "have": entry.have,
        "making": entry.making,
        "empty_reason": state.empty_reason,
        "failures": state.failures,
        "failing_since": iso(state.failing_since),
    }


def pool_document(entry: PoolStatus) -> types.PoolDocument:
    """A pool for programs: durations seconds, cost USD."""
    pool = entry.pool
    return {
        "name": pool.name,
        "kind": pool.spec.kind,
        "want": entry.want,
        "have": entry.have,
        "making": entry.making,
        "claimed": entry.claimed,
        "hit_rate": entry.hit_rate,
        "p50": entry.p50,
        "p95": entry.p95,
        "idle_usd_today": round(entry.idle_usd_today, 6),
        "empty_reason": entry.empty_reason,
        "places": [pool_place_document(place) for place in entry.by_place],
        "provider": pool.spec.provider,
        "machine_type": pool.spec.machine_type,
        "container": pool.spec.container,
        "network": network_document(pool.spec.network),
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
) -> types.ShownBuildDocument:
    """One build with all that is known of it, as `show` has it. `waiting`: why it is queued."""
    rows, listed = list(instances), list(events)
    start = start_of(build, rows)
    return {
        **ended_document(build, listed),  # type: ignore[typeddict-item]  # `show` adds `tests`
        "start": start,
        "waiting": waiting,
        "instances": [instance_document(row) for row in rows],
        "events": [event_document(event) for event in listed],
        "artifacts_back": [artifact_document(artifact) for artifact in artifacts],
    }


def start_of(build: BuildRecord, rows: Iterable[Instance]) -> Start | None:
    """The start of the build's VM: fresh, out of a pool or from a template."""
    return next((row.start for row in rows if row.id == build.instance), None)


def artifact_document(artifact: Artifact) -> types.ArtifactDocument:
    return {"path": artifact.path, "size": artifact.size}


def tests_document(found: ReportedTests) -> types.TestsDocument:
    """Results of the tests in a build's reports: what these say is the build's own word."""
    return {
        "total": found.total,
        "failed": found.failed,
        "skipped": found.skipped,
        "seconds": round(found.seconds, 3),
        "failures": [
            {
                "name": shown(test.name),
                "suite": shown(test.suite),
                "report": shown(test.report),
                "seconds": test.seconds,
                "message": shown(test.message),
                "text": shown(test.text),
            }
            for test in found.failures
        ],
        "unread": [shown(line) for line in found.unread],
    }


def log_line_document(line: LogLine) -> types.LogLineDocument:
    return {"seq": line.seq, "time": iso(line.time), "text": line.raw.decode(errors="replace")}


def verdict_document(line: ReportLine) -> types.VerdictDocument:
    """A decision of the reaper about one thing."""
    return {
        "provider": line.provider,
        "what": line.what,
        "kind": line.kind,
        "id": line.id,
        "reason": line.reason,
        "instance": line.instance,
        "build": line.build,
        "age": line.age,
        "late": line.late,
        "cost": usd(line.cost),
        "outcome": line.outcome or None,
    }


def survivor_document(found: Survivor) -> types.SurvivorDocument:
    """A resource that is alive and should not be."""
    return {
        "fault": found.fault,
        "instance": found.instance,
        "ref": found.ref.id if found.ref else None,
        "kind": found.ref.kind if found.ref else None,
        "scope": str(found.ref.scope) if found.ref else None,
        "late": found.late,
        "message": found.message,
    }


def removal_document(removal: Removal) -> types.RemovalDocument:
    return {
        "what": removal.what,
        "count": removal.count,
        "bytes": removal.size,
        "failed": removal.failed,
    }


def finding_document(finding: Finding) -> types.FindingDocument:
    return {
        "check": finding.check,
        "level": finding.level,
        "message": finding.message,
        "fix": finding.fix or None,
    }


def node_document(node: Node) -> types.NodeDocument:
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


def action_document(action: Action, names: Mapping[str, str]) -> types.ActionDocument:
    """An action. `names`: of actors that have one."""
    return {
        "time": iso(action.at),
        "actor": action.actor,
        "actor_name": names.get(action.actor),
        "verb": action.verb,
        "subject": action.subject,
        "detail": action.detail or None,
    }


def token_document(token: Token) -> types.TokenDocument:
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
            "network": None if quota.network is None else network_document(quota.network),
            "docker": quota.docker,
            "images": None if quota.images is None else list(quota.images),
        },
        "actor": token.actor,
        "created_at": iso(token.created_at),
        "created_by": token.created_by,
        "expires_at": iso(token.expires_at),
        "revoked_at": iso(token.revoked_at),
    }


def budget_document(state: BudgetState) -> types.BudgetDocument:
    """A budget, and how much of it is spent, or held for VMs that are there."""
    return {
        "name": state.budget.name,
        "period": state.budget.period,
        "match": dict(state.budget.match),
        "action": state.budget.action,
        "usd": state.budget.usd,
        "held_usd": round(state.held, 6),
        "since": iso(state.start),
    }


def endpoint_document(status: EndpointStatus) -> types.EndpointDocument:
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


def envelope(kind: str, items: Iterable[D]) -> types.Envelope[D]:
    """Documents in their stable outer shape."""
    return {"schema_version": SCHEMA_VERSION, "kind": kind, "items": list(items)}


def command_document(command: CommandSummary) -> types.CommandDocument:
    """A command of a sandbox."""
    end = command.end
    return {
        "id": shown(command.id),
        "title": shown(command.title),
        "state": "running" if end is None else "ended",
        "exit_code": None if end is None else end.exit_code,
        "timed_out": end is not None and end.timed_out,
    }


def file_document(entry: FileEntry) -> types.FileDocument:
    """A file of a sandbox."""
    return {
        "name": shown(entry.name),
        "path": shown(entry.path),
        "kind": shown(entry.kind),
        "size": entry.size,
        "mode": f"{entry.mode:04o}",
        "modified_at": iso(min(max(entry.modified, _FIRST), _LAST)),
    }
