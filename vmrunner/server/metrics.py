"""Metrics for Prometheus, read from the ledger when they are scraped. No label holds an id of a
build or VM."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from vmrunner.core.reap_plan import SightingKind
from vmrunner.model import BuildUsage, Death, InstanceState
from vmrunner.reaper.once import PASSED, SWEPT, swept_in
from vmrunner.services import alarms, pools

if TYPE_CHECKING:
    from vmrunner.server.dependencies import ServerParts

#: Seconds after which a scope that is not swept any more is no longer shown: no engine has it.
FORGOTTEN: Final = 86_400.0
#: Upper ends of the histogram of phases, in seconds.
BUCKETS: Final[tuple[float, ...]] = (
    0.1,
    0.5,
    1,
    2,
    5,
    10,
    20,
    30,
    60,
    120,
    300,
    600,
    1800,
    3600,
    14400,
)
SIZE_BUCKETS: Final = tuple(float(1 << power) for power in range(24, 39))  # 16 MiB to 256 GiB
_AT_ONCE: Final = 1000  # rows in one question


class LedgerCollector(Collector):
    """All that the ledger tells, at each scrape."""

    def __init__(self, parts: ServerParts) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        ledger, now = self._parts.ledger, self._parts.now()
        yield from self._builds(now)
        yield from self._instances()
        yield from self._reaper()
        yield from self._pools()
        yield from self._webhooks(now)
        yield from self._money(now)
        yield from self._calls()
        lease = GaugeMetricFamily(
            "vmrunner_engine_lease_seconds",
            "Since the last heartbeat of an engine.",
            labels=["kind"],
        )
        oldest: dict[str, float] = {}
        for member in ledger.engines.list():
            oldest[member.kind] = max(oldest.get(member.kind, 0.0), now - member.seen_at)
        for kind, seconds in sorted(oldest.items()):
            lease.add_metric([kind], seconds)
        yield lease

    def _builds(self, now: float) -> Iterator[Metric]:
        ledger = self._parts.ledger
        ended = CounterMetricFamily(
            "vmrunner_builds", "Builds that ended.", labels=["provider", "result", "reason"]
        )
        for provider, result, reason, count in ledger.metrics.ended():
            ended.add_metric([provider, result, reason], count)
        yield ended
        states = GaugeMetricFamily(
            "vmrunner_builds_open", "Builds that did not end yet.", labels=["provider", "state"]
        )
        for provider, state, count in ledger.metrics.unended():
            states.add_metric([provider, state], count)
        yield states
        oldest = ledger.metrics.oldest_queued()
        yield _gauge(
            "vmrunner_queue_oldest_seconds",
            "How long the build waits that was queued first of those that wait now.",
            0.0 if oldest is None else now - oldest,
        )
        cost = CounterMetricFamily(
            "vmrunner_cost_usd", "Estimated cost of builds that ended.", labels=["provider"]
        )
        for provider, usd in ledger.metrics.cost():
            cost.add_metric([provider], usd)
        yield cost

    def _money(self, now: float) -> Iterator[Metric]:
        """Budgets of the configuration: those of tokens would name their holders."""
        limits = GaugeMetricFamily(
            "vmrunner_budget_usd", "What a budget has for a day or month.", labels=["budget"]
        )
        held = GaugeMetricFamily(
            "vmrunner_budget_held_usd",
            "What is spent of it, and held for VMs until their deadlines.",
            labels=["budget"],
        )
        for state in self._parts.ledger.budgets.states(now):
            limits.add_metric([state.budget.name], state.budget.usd)
            held.add_metric([state.budget.name], state.held)
        yield limits
        yield held
        ages = GaugeMetricFamily(
            "vmrunner_prices_age_seconds",
            "Since a cloud was asked for its prices.",
            labels=["kind", "place"],
        )
        for age in self._parts.ledger.prices.ages():
            ages.add_metric([age.kind, age.place], now - age.newest)
        yield ages

    def _instances(self) -> Iterator[Metric]:
        ledger, providers = self._parts.ledger, self._parts.providers
        rows = ledger.instances.open()
        instances = Counter((row.provider, row.state.value) for row in rows)
        found = GaugeMetricFamily(
            "vmrunner_instances", "VMs that are not seen gone.", labels=["provider", "state"]
        )
        for key, count in sorted(instances.items()):
            found.add_metric(list(key), count)
        yield found
        late = alarms.lateness(rows, providers).values()
        yield _gauge(
            "vmrunner_instance_overdue_seconds",
            "By how much the VM is late that should be gone longest. Above 60: the alarm.",
            max([0.0, *late]),
        )
        hourly = GaugeMetricFamily(
            "vmrunner_instances_usd_per_hour",
            "What those of a known price cost an hour.",
            labels=["provider"],
        )
        rates: defaultdict[str, float] = defaultdict(float)
        unpriced: Counter[str] = Counter()
        for row in rows:
            if row.state is not InstanceState.REQUESTED:
                rate = row.rate
                parked = row.state is InstanceState.PARKED
                usd_hour = rate.parked_usd_hour if parked else rate.usd_hour
                rates[row.provider] += usd_hour or 0.0  # the unpriced are told beside it
                unpriced[row.provider] += usd_hour is None
        for name, usd in sorted(rates.items()):
            hourly.add_metric([name], usd)
        yield hourly
        unknown = GaugeMetricFamily(
            "vmrunner_instances_unpriced", "VMs whose price is unknown.", labels=["provider"]
        )
        for name, count in sorted(unpriced.items()):
            unknown.add_metric([name], count)
        yield unknown
        kills = CounterMetricFamily("vmrunner_kills", "VMs that ended, by why.", labels=["verdict"])
        counts = dict(ledger.metrics.deaths())
        for death in Death:
            kills.add_metric([death.value], counts.get(death.value, 0))
        yield kills

    def _reaper(self) -> Iterator[Metric]:
        beats = self._parts.ledger.engines.heartbeats()
        yield _gauge(
            "vmrunner_reaper_last_pass_timestamp_seconds",
            "When the reaper finished its last pass over the ledger.",
            beats.get(PASSED, 0.0),
        )
        sweeps = GaugeMetricFamily(
            "vmrunner_reaper_last_sweep_timestamp_seconds",
            "When the reaper finished its last sweep: of all clouds, and by scope.",
            labels=["scope"],
        )
        last = beats.get(SWEPT, 0.0)
        sweeps.add_metric([""], last)
        for name, at in sorted(beats.items()):
            if name.startswith(swept_in("")) and at > last - FORGOTTEN:
                sweeps.add_metric([name.removeprefix(swept_in(""))], at)
        yield sweeps
        seen = self._parts.ledger.metrics.sightings()
        yield _gauge(
            "vmrunner_orphans",
            "Things of ours without a row, at the last sweep.",
            seen.get(SightingKind.ORPHAN.value, 0),
        )
        yield _gauge(
            "vmrunner_latched",
            "Above 0: there are more orphans than the cap, and none is ended.",
            seen.get(SightingKind.LATCH.value, 0),
        )

    def _pools(self) -> Iterator[Metric]:
        sizes = GaugeMetricFamily(
            "vmrunner_pool_size", "VMs that wait for builds.", labels=["pool", "kind", "count"]
        )
        for entry in pools.status(self._parts.ledger, self._parts.providers):
            name, kind = entry.pool.name, entry.pool.spec.kind.value
            sizes.add_metric([name, kind, "want"], entry.want or 0)
            sizes.add_metric([name, kind, "have"], entry.have)
        yield sizes

    def _calls(self) -> Iterator[Metric]:
        calls = CounterMetricFamily(
            "vmrunner_provider_calls",
            "Calls of this process through the providers' port.",
            labels=["provider", "op", "outcome"],
        )
        for key, count in sorted(self._parts.providers.calls.counts().items()):
            calls.add_metric(list(key), count)
        yield calls

    def _webhooks(self, now: float) -> Iterator[Metric]:
        waiting = GaugeMetricFamily(
            "vmrunner_notify_waiting", "Events that a webhook did not take yet.", labels=["notify"]
        )
        oldest = GaugeMetricFamily(
            "vmrunner_notify_oldest_seconds",
            "How long the oldest of them waits.",
            labels=["notify"],
        )
        lost = CounterMetricFamily(
            "vmrunner_notify_given_up", "Events that no try could deliver.", labels=["notify"]
        )
        for endpoint in self._parts.ledger.outbox.status():
            waiting.add_metric([endpoint.name], endpoint.waiting)
            oldest.add_metric(
                [endpoint.name], 0.0 if endpoint.oldest is None else now - endpoint.oldest
            )
            lost.add_metric([endpoint.name], endpoint.given_up)
        yield from (waiting, oldest, lost)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


class Metrics:
    """The metrics of one server. What is counted one by one is counted from its start on."""

    def __init__(self, parts: ServerParts) -> None:
        self._parts = parts
        self._lock = threading.Lock()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(LedgerCollector(parts))
        self._phases = Histogram(
            "vmrunner_build_phase_seconds",
            "How long builds were in each phase, once they ended; `start`: how they came by a VM.",
            labelnames=["phase", "start"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._claims = PrometheusCounter(
            "vmrunner_pool_claims",
            "Builds that wanted a pool's VM; `outcome`: hit or miss.",
            labelnames=["pool", "outcome"],
            registry=self._registry,
        )
        self._memory, self._cpu, self._vm_cpu, self._vm_disk = (
            Histogram(
                f"vmrunner_build_{name}",
                text,
                labelnames=["provider"],
                buckets=SIZE_BUCKETS if name.endswith("bytes") else BUCKETS,
                registry=self._registry,
            )
            for name, text in (
                (
                    "memory_peak_bytes",
                    "Memory that a build's container had at once at most, as its VM says.",
                ),
                ("cpu_seconds", "CPU time that a build's container took, as its VM says."),
                ("vm_cpu_seconds", "CPU time that a build's VM took, as its host says."),
                ("vm_disk_bytes", "What a build's VM had of its host's disk, as that says."),
            )
        )
        self._disk, self._network = (
            PrometheusCounter(
                f"vmrunner_build_{what}_bytes",
                f"Bytes that containers of builds {moved}, as their VMs say.",
                labelnames=["provider", "direction"],
                registry=self._registry,
            )
            for what, moved in (
                ("disk", "read from their disks and wrote"),
                ("network", "received and sent"),
            )
        )
        self._finished = self._claimed = (parts.now(), "")

    def exposition(self) -> bytes:
        """Return all metrics as Prometheus reads them."""
        with self._lock:
            self._count()
            return generate_latest(self._registry)

    def _count(self) -> None:
        """Count what came since the last time."""
        counts = self._parts.ledger.metrics
        while finished := counts.finished_after(*self._finished, _AT_ONCE):
            for build in finished:
                self._finished = build.finished_at, build.id
                for phase in build.phases:
                    seconds = phase.seconds(build.finished_at)
                    self._phases.labels(phase.state.value, build.start).observe(seconds)
                self._count_usage(build.provider, build.usage)
        while claimed := counts.claims_after(*self._claimed, _AT_ONCE):
            for claim in claimed:
                self._claimed = claim.at, claim.build
                self._claims.labels(claim.pool, "hit" if claim.hit else "miss").inc()

    def _count_usage(self, provider: str, usage: BuildUsage) -> None:
        """Count what a build used. What is unknown is not counted as nothing."""
        for histogram, figure in (
            (self._memory, usage.memory_peak),
            (self._cpu, usage.cpu_seconds),
            (self._vm_cpu, usage.vm_cpu_seconds),
            (self._vm_disk, usage.vm_disk),
        ):
            if figure is not None:
                histogram.labels(provider).observe(figure)
        for counter, direction, figure in (
            (self._disk, "read", usage.disk_read),
            (self._disk, "written", usage.disk_written),
            (self._network, "received", usage.network_received),
            (self._network, "sent", usage.network_sent),
        ):
            if figure is not None:
                counter.labels(provider, direction).inc(figure)
