"""Types of the documents of builds and logs."""

from __future__ import annotations

from typing import NotRequired, TypeAlias

from typing_extensions import TypedDict

from vmrunner.model.choices import Network
from vmrunner.model.cloud import Market
from vmrunner.model.money import PriceSource
from vmrunner.model.states import BuildState, Death, InstanceState, Reason, Result, Start
from vmrunner.services.document_types.values import (
    Base64,
    Moment,
    Runtime,
    Scalar,
    Seconds,
    Size,
    Usd,
)


class AllowListDocument(TypedDict):
    """The hosts that a build may reach by name."""

    allow: list[str]


NetworkDocument: TypeAlias = Network | AllowListDocument


class StepDocument(TypedDict):
    """A step: `run` is a shell line, `argv` one command. Once it was looked at, when it ran in the
    last attempt and how it ended."""

    name: str
    run: NotRequired[str]
    argv: NotRequired[list[str]]
    timeout: NotRequired[Seconds]
    env: NotRequired[dict[str, str]]
    started_at: NotRequired[Moment | None]
    ended_at: NotRequired[Moment | None]
    exit_code: NotRequired[int | None]


class ArtifactRuleDocument(TypedDict):
    """A rule for artifacts to bring back; `always`: also when the steps failed."""

    path: str
    always: bool


class CacheRuleDocument(TypedDict):
    """A directory that is restored before the steps and saved after success."""

    key: str
    path: str
    fallback: list[str]


class SpecDocument(TypedDict):
    """All that a build is asked for, by the names that it is asked for with. `secrets`: names."""

    steps: list[StepDocument]
    provider: str
    container: str
    container_runtime: Runtime
    timeout: Seconds
    ttl: Seconds
    image: str | None
    bootstrap: bool
    docker: bool
    privileged: bool
    source: str | None
    env: dict[str, str]
    secrets: list[str]
    registry_secret: str | None
    artifacts: list[ArtifactRuleDocument]
    caches: list[CacheRuleDocument]
    labels: dict[str, str]
    queue_timeout: Seconds | None
    keep_on_failure: Seconds | None
    network: NetworkDocument
    name: str | None
    cpus: int | None
    memory: Size | None
    disk: Size | None
    spot: bool
    retry_on_loss: bool
    priority: int
    keep_logs: Seconds | None
    idempotency_key: str | None
    sandbox_ttl: Seconds | None


class PhaseDocument(TypedDict):
    """A stretch of a build's life; `ended_at` is null while it lasts."""

    state: BuildState
    started_at: Moment
    ended_at: Moment | None
    seconds: Seconds | None


class UsageDocument(TypedDict):
    """Use of a build in its last attempt; null: unknown. The last two are of its whole VM, as
    its host says; the others are the VM's own word."""

    memory_peak: Size | None
    cpu_seconds: Seconds | None
    disk_read: Size | None
    disk_written: Size | None
    network_received: Size | None
    network_sent: Size | None
    vm_cpu_seconds: Seconds | None
    vm_disk: Size | None


class InstanceDocument(TypedDict):
    """A VM, as the ledger has it."""

    id: str
    build: str | None
    attempt: int
    state: InstanceState
    provider: str
    kind: str
    account: str
    place: str
    machine_type: str
    market: Market
    image: str | None
    container: str | None  # of a unit: by digest, where it was given by a tag
    ref: str | None
    address: str | None
    created_at: Moment
    deadline: Moment
    gone_at: Moment | None
    death: Death | None
    message: str | None
    deletes: int
    pool: str | None
    start: Start | None
    due: Moment | None
    usd_hour: Usd | None
    price_source: PriceSource
    price_as_of: Moment | None


class EventDocument(TypedDict):
    """Something that happened to a build."""

    seq: int
    time: Moment
    kind: str
    data: dict[str, Scalar]


class ArtifactDocument(TypedDict):
    """A file that a build brought back."""

    path: str
    size: Size


class FailedTestDocument(TypedDict):
    """A test that failed. `text`: the end of what it wrote."""

    name: str
    suite: str
    report: str
    seconds: Seconds | None
    message: str
    text: str


class TestsDocument(TypedDict):
    """Results of the tests in a build's JUnit reports. `failures`: the first of the `failed`;
    `unread`: reports that could not be read, and why."""

    total: int
    failed: int
    skipped: int
    seconds: Seconds
    failures: list[FailedTestDocument]
    unread: list[str]


class BuildDocument(SpecDocument):
    """A build. `cost` is null where a price is unknown."""

    id: str
    state: BuildState
    result: Result | None
    reason: Reason | None
    exit_code: int | None
    message: str | None
    attempt: int
    instance: str | None
    start: Start | None
    actor: str | None
    actor_name: str | None
    created_at: Moment
    finished_at: Moment | None
    hold_until: Moment | None
    phases: list[PhaseDocument]
    cost: Usd | None
    cost_final: bool
    cost_source: PriceSource | None
    cost_as_of: Moment | None
    usage: UsageDocument
    foreground: bool
    cancel: Reason | None


class ListedBuildDocument(BuildDocument):
    """A build in a list. `waiting`: why it is queued."""

    waiting: str | None


class EndedBuildDocument(BuildDocument):
    """A build with what its steps came to. `failed_step`: in which it ended otherwise than well."""

    failed_step: str | None


class ResultDocument(EndedBuildDocument):
    """A build that `run` waited for. `artifacts_back` is null where they cannot be told now."""

    artifacts_back: list[ArtifactDocument] | None


class ShownBuildDocument(EndedBuildDocument):
    """A build with all that is known of it. `tests`: of its reports, in `vmrunner show`."""

    waiting: str | None
    instances: list[InstanceDocument]
    events: list[EventDocument]
    artifacts_back: list[ArtifactDocument]
    tests: NotRequired[TestsDocument]


class LogLineDocument(TypedDict):
    """A line of a log. `cut`: it is longer than `text`."""

    seq: int
    time: Moment
    text: str
    cut: NotRequired[bool]


class LogSectionDocument(TypedDict):
    """A part of a log: the output of a step, from line `first` to `last`, which is less than that
    where there is none. `step`: its place among the steps, from 0 on."""

    step: int | None
    title: str
    attempt: int | None
    first: int
    last: int
    started_at: Moment | None
    ended_at: Moment | None
    exit_code: int | None


class LogSearchDocument(TypedDict):
    """Numbers of lines that have a text in them, among the first `searched`; `done`: those are all
    that there are."""

    lines: list[int]
    searched: int
    done: bool


class ChunkHeadDocument(TypedDict):
    """A part of a log as it is stored, without its bytes. `time`: seconds since 1970; `offset`:
    where it ended in the VM's file; `line`: how many lines lie before it."""

    seq: int
    attempt: int
    time: float
    offset: int
    line: int
    size: Size


class ChunkDocument(ChunkHeadDocument):
    """A part of a log as it is stored."""

    data: Base64
