"""Documents of servers that are newer than we are: what we don't know of them is left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, asdict, fields, is_dataclass, replace
from typing import Any

import pytest

from tests.support.reaper_inputs import row
from vmrunner.errors import ServerUnreachable
from vmrunner.model import (
    ArtifactRule,
    BuildRecord,
    BuildSpec,
    BuildState,
    BuildUsage,
    CacheRule,
    CommandEnd,
    CommandSummary,
    FileEntry,
    Network,
    Phase,
    Reason,
    Result,
    Role,
    Step,
)
from vmrunner.services.client import decoding
from vmrunner.services.documents import (
    build_document,
    command_document,
    file_document,
    instance_document,
)

BUILD = BuildRecord(
    id="b-1",
    spec=BuildSpec(
        provider="fake",
        container="x",
        timeout=60.0,
        ttl=120.0,
        steps=(Step(run="make"),),
        labels={"team": "a"},
    ),
    state=BuildState.FINISHED,
    created_at=10.0,
    state_since=12.0,
    result=Result.SUCCESS,
    reason=Reason.EXIT_CODE,
    exit_code=0,
    finished_at=12.0,
    phases=(Phase(state=BuildState.RUNNING, started=11.0, ended=12.0),),
    usage=BuildUsage(memory_peak=5, vm_cpu_seconds=1.5),
    actor="token:t-1",
)
COMMAND = CommandSummary(id="c1", title="make", end=CommandEnd(exit_code=3))
END = CommandEnd(exit_code=3, timed_out=True, seconds=1.5)
FILE = FileEntry(name="f", path="/work/f", kind="file", size=3, mode=0o644, modified=10.0)


def newer(document: Any, name: str = "") -> Any:
    """The document as a later version may send it: with one field more wherever it has fields."""
    if isinstance(document, list):
        return [newer(item) for item in document]
    if not isinstance(document, dict) or name in ("env", "labels"):  # their keys are the user's
        return document
    return {key: newer(value, key) for key, value in document.items()} | {"of_tomorrow": 1}


@pytest.mark.parametrize(
    ("decode", "document", "value"),
    [
        (decoding.build, build_document(BUILD), BUILD),
        (decoding.command_summary, command_document(COMMAND), COMMAND),
        (decoding.command_end, asdict(END), END),
        (decoding.file_entry, file_document(FILE), FILE),
    ],
)
def test_fields_of_a_newer_server_are_left_alone(
    decode: Callable[[Any], object], document: dict[str, Any], value: object
) -> None:
    assert decode(document) == value
    assert decode(newer(document)) == value


@pytest.mark.parametrize(
    ("build", "pool", "role"),
    [("b-1", None, Role.BUILD), ("b-1", "fast", Role.BUILD), (None, "fast", Role.POOL),
     (None, None, Role.IMAGE)],
)  # fmt: skip
def test_a_vms_role_is_told_by_whose_it_is(build: str | None, pool: str | None, role: Role) -> None:
    found = decoding.instance(instance_document(row(build=build, pool=pool)))
    assert found.role is role


def test_a_figure_of_a_newer_server_takes_none_of_ours() -> None:
    document = build_document(BUILD)
    document["usage"] = {"memory_peak": 5, "gpu_seconds": 2.0}
    assert decoding.build(document).usage == BuildUsage(memory_peak=5)


def test_a_former_server_names_no_submitter() -> None:
    document = build_document(BUILD)
    del document["actor"]
    assert decoding.build(document) == replace(BUILD, actor="")


def test_a_field_that_is_missing_is_told() -> None:
    document = build_document(BUILD)
    del document["state"]
    with pytest.raises(ServerUnreachable, match=r"cannot be read: KeyError: 'state'.*another"):
        decoding.build(document)


def values_in(value: Any) -> Iterator[Any]:
    """Yield a value of ours and all values of ours in it, however deep."""
    if is_dataclass(value):
        yield value
        for item in fields(value):
            yield from values_in(getattr(value, item.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from values_in(item)


def default(item: Field[Any]) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def test_each_field_of_a_spec_comes_back() -> None:
    spec = BuildSpec(
        provider="local", container="x", timeout=60.0, ttl=120.0, image="i", bootstrap=True,
        steps=(
            Step(argv=("make", "-j"), name="all", timeout=5.0),
            Step(run="make check", env={"CC": "clang"}),
        ),
        docker=True, privileged=True, runtime="runsc", source=".", env={"A": "b"}, secrets=("T",),
        registry_secret="R", artifacts=(ArtifactRule(glob="out/*", always=True),),
        labels={"team": "a"}, caches=(CacheRule(key="pip", path="/c", fallback=("p",)),),
        queue_timeout=1.0, keep_on_failure=2.0, network=Network.NONE, name="n", cpus=2, memory=3,
        disk=4, spot=True, retry_on_loss=True, priority=5, keep_logs=6.0, idempotency_key="k",
        sandbox_ttl=7.0,
    )  # fmt: skip
    given = {
        (type(value), item.name)
        for value in values_in(spec)
        for item in fields(value)
        if getattr(value, item.name) != default(item)
    }
    every = {(type(value), item.name) for value in values_in(spec) for item in fields(value)}
    assert every - given == set(), "fields that this test forgot"
    assert decoding.build(build_document(replace(BUILD, spec=spec))).spec == spec


@pytest.mark.parametrize(
    ("container", "vm", "shown"),
    [
        (2370.0, 412.0, None),
        (412.0, 412.0, 412.0),
        (3.5, 3.0, 3.5),
        (9.0, None, 9.0),
        (None, 3.0, None),
    ],
)
def test_no_container_had_more_processor_than_its_vm(
    container: float | None, vm: float | None, shown: float | None
) -> None:
    usage = BuildUsage(cpu_seconds=container, vm_cpu_seconds=vm)
    assert (usage.cpu_seconds, usage.vm_cpu_seconds) == (shown, vm)
    document = build_document(replace(BUILD, usage=usage))
    assert document["usage"]["cpu_seconds"] == shown
    document["usage"] = {"cpu_seconds": container, "vm_cpu_seconds": vm}  # of a former server
    assert decoding.build(document).usage.cpu_seconds == shown
