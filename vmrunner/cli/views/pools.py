"""Views of pools."""

from __future__ import annotations

from vmrunner.cli.output import Column, ListView
from vmrunner.lib import units
from vmrunner.services.documents import pool_document
from vmrunner.services.pools import PoolPlaceStatus, PoolStatus, trouble


def pool_view() -> ListView[PoolStatus]:
    """`pool ls` and `pool show`."""
    return ListView(
        kind="pool",
        columns=(
            Column("name", lambda p: p.pool.name),
            Column("kind", lambda p: p.pool.spec.kind.value),
            Column("provider", lambda p: p.pool.spec.provider),
            Column("want", lambda p: "?" if p.want is None else str(p.want)),
            Column("have", lambda p: str(p.have)),
            Column("making", lambda p: str(p.making)),
            Column("claimed", lambda p: str(p.claimed)),
            Column("hits", lambda p: "" if p.hit_rate is None else f"{p.hit_rate:.0%}"),
            Column("p50", lambda p: _span(p.p50)),
            Column("p95", lambda p: _span(p.p95)),
            Column("idle today", lambda p: f"${p.idle_usd_today:.2f}"),
            Column("empty", lambda p: p.empty_reason.value if p.empty_reason else ""),
            Column("container", lambda p: p.pool.spec.container, wide=True),
            Column("revision", lambda p: str(p.pool.revision), wide=True),
        ),
        document=pool_document,
    )


def _span(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f}s"


def description(entry: PoolStatus) -> dict[str, str]:
    """Return the lines of `pool show`."""
    spec = entry.pool.spec
    return {
        "pool": entry.pool.name,
        "kind": spec.kind.value,
        "provider": spec.provider,
        "machine": spec.machine_type or "",
        "container": spec.container,
        "network": str(spec.network),
        "size": _size(entry),
        "VMs": f"{entry.have} ready, {entry.making} on their way, {entry.claimed} with a build",
        "empty": _empty(entry),
        **{f"at {place.state.place}": _at(place) for place in entry.by_place if place.state.place},
        "builds": f"{entry.builds} in {units.span(7 * 86400)}"
        + ("" if entry.hit_rate is None else f", {entry.hit_rate:.0%} of them served"),
        "first step": ""
        if entry.p50 is None
        else f"p50 {_span(entry.p50)}, p95 {_span(entry.p95)} after the submission",
        "serves": f"builds of up to {units.exact(spec.ttl)}; an unclaimed VM is replaced after "
        f"{units.exact(spec.idle)}",
        "idle today": f"${entry.idle_usd_today:.2f}"
        + ("" if spec.usd_per_day is None else f" of at most ${spec.usd_per_day:.2f}"),
    }


def _at(place: PoolPlaceStatus) -> str:
    state, want = place.state, "?" if place.state.want is None else str(place.state.want)
    reason = f": {state.empty_reason.value}" if state.empty_reason else ""
    failures = f", {state.failures} failures in a row" if state.failures else ""
    return f"{place.have} ready of {want}, {place.making} on their way{reason}{failures}"


def _empty(entry: PoolStatus) -> str:
    words = (entry.empty_reason.value if entry.empty_reason else "", trouble(entry))
    return ": ".join(word for word in words if word)


def _size(entry: PoolStatus) -> str:
    spec, want = entry.pool.spec, "?" if entry.want is None else str(entry.want)
    if entry.pool.draining:
        return "drained, until the configuration changes or it is resized"
    if entry.pool.size is not None:
        return f"{want}, by `pool resize`, until the configuration changes"
    if spec.size is not None:
        return want
    if spec.schedule:
        return f"{want}, by schedule"
    return f"{want}, for a hit rate of {spec.hit_rate:.0%} ({spec.least} to {spec.most})"
