"""An option of a build is one field: each is accepted by Python, job file and command line, lands
in the spec and is in the document. What lacks a field is found by the field's name alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from vmrunner import cli
from vmrunner.api.keywords import BuildOptions, SandboxOptions, build_request
from vmrunner.cli import run_inputs
from vmrunner.config import jobfile
from vmrunner.config.build_request import BuildFields, BuildRequest, SandboxRequest
from vmrunner.config.plain_request import unit
from vmrunner.config.settings import Settings
from vmrunner.errors import ConfigError
from vmrunner.lib import units
from vmrunner.lib.config_section import Bytes, Seconds
from vmrunner.model import BuildRecord, BuildSpec, BuildState, CacheRule
from vmrunner.services import requests
from vmrunner.services.documents import build_document, spec_document
from vmrunner.services.host_access import HostAccess

SETTINGS = Settings.model_validate(
    {"providers": {"x1": {"kind": "fake"}, "x2": {"kind": "fake"}}, "limits": {"privileged": True}}
)
COMMANDS = typer.main.get_command(cli.app()).commands  # type: ignore[attr-defined]
RUN = COMMANDS["run"]
STORED = {"container_runtime": "runtime"}  # the one name that a spec has for itself
OPTIONS = [name for name in BuildRequest.model_fields if name != "steps"]
IN_JOBS = [name for name in OPTIONS if name in BuildFields.model_fields]
#: What a field needs beside it: a secret that it names.
BESIDE: Mapping[str, Mapping[str, Any]] = {"registry_secret": {"secrets": ["X1"]}}
Model = type[BuildRequest]


class Planted(BuildRequest):
    """One field more, which nothing else knows."""

    planted: int | None = None


def bare(annotation: Any) -> Any:
    """The type without None and without what is noted beside it."""
    if get_origin(annotation) is Annotated:
        return bare(get_args(annotation)[0])
    members = [member for member in get_args(annotation) if member is not type(None)]
    words = [member for member in members if isinstance(member, type) and issubclass(member, Enum)]
    if words and get_origin(annotation) in (Union, UnionType):  # words, or a table
        return words[0]
    return bare(members[0]) if type(None) in get_args(annotation) else annotation


def sample(name: str, model: Model = BuildRequest) -> Any:
    """A value that is not the default, by the type of the field and nothing else."""
    kind = bare(model.model_fields[name].annotation)
    if name in BESIDE:
        return "X1"
    if get_origin(kind) is Literal:
        return get_args(kind)[-1]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return list(kind)[-1].value
    if kind is int:
        return 5 << 30 if unit(name) == "bytes" else 3
    if get_origin(kind) is Mapping:
        return ["X1"] if bytes in get_args(kind) else {"X1": "long"}
    if CacheRule in get_args(kind):
        return [{"key": "x2", "path": "/x2"}]
    return {bool: True, float: 3000.0, str: "x2"}.get(kind, ["x2"])


def words(name: str, model: Model = BuildRequest) -> list[str]:
    """The same on the command line: a table or list is an option in the singular, once an item."""
    value = sample(name, model)
    if value is True:
        return [option(name, model)]
    items = value if isinstance(value, list) else [value]
    if isinstance(value, dict):
        items = [f"{key}={item}" for key, item in value.items()]
    items = ["=".join(item.values()) if isinstance(item, dict) else str(item) for item in items]
    return [word for item in items for word in (option(name, model), item)]


def option(name: str, model: Model = BuildRequest) -> str:
    many = isinstance(sample(name, model), list | dict)
    return "--" + (name.removesuffix("s") if many else name).replace("_", "-")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where "x2" is a directory and X1 a variable."""
    (tmp_path / "x2").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("X1", "me:hunter2")
    return tmp_path


def by_python(options: Any) -> BuildSpec:
    return spec(build_request("make", options))


def by_job(options: Mapping[str, Any]) -> BuildSpec:
    """A file that says it, without what only a flag can say."""
    Path("j.yml").write_text(json.dumps({"jobs": {"a b": {**options, "steps": ["make"]}}}))
    leave = HostAccess(secrets=frozenset({"X1"}))
    return spec(
        requests.from_job(jobfile.choose(Path("j.yml"), None), {"X1": "me:hunter2"}, allowed=leave)
    )


def by_command_line(argv: Sequence[str]) -> BuildSpec:
    context = RUN.make_context("run", list(argv))
    return spec(run_inputs.request(context.params, run_inputs.steps((), ["make"])))


def spec(request: BuildRequest) -> BuildSpec:
    return requests.check(request, SETTINGS).spec


def document(build_spec: BuildSpec) -> dict[str, Any]:
    state = BuildState.QUEUED
    return build_document(
        BuildRecord(id="b-1", spec=build_spec, state=state, created_at=0, state_since=0)
    )


DEFAULT: Mapping[str, Any] = {"provider": "x1"}


def lands(name: str, model: Model = BuildRequest) -> None:
    """Python takes it, the spec holds it and nothing else is new; the document shows it."""
    beside = {**DEFAULT, **BESIDE.get(name, {})}
    usual, given = by_python(beside), by_python({**beside, name: sample(name, model)})
    stored = STORED.get(name, name)
    changed = {
        field.name
        for field in fields(usual)
        if getattr(usual, field.name) != getattr(given, field.name)
    }
    assert changed - {"ttl"} == {stored} - {"ttl"}, "ttl follows the timeout"
    assert getattr(given, stored) != getattr(usual, stored)
    shown, otherwise = document(given), document(usual)
    assert shown[name] != otherwise[name]
    json.dumps(shown)


def job_says_it(name: str, model: Model = BuildRequest) -> None:
    values = {**DEFAULT, **BESIDE.get(name, {}), name: sample(name, model)}
    assert by_job(values) == by_python(values)


def command_line_says_it(name: str, model: Model = BuildRequest) -> None:
    """With the field's own help text."""
    argv = [] if name == "provider" else ["--provider", "x1"]
    beside = BESIDE.get(name, {})
    argv += [word for other in beside for word in words(other, model)]
    values = {**DEFAULT, **beside, name: sample(name, model)}
    assert by_command_line([*argv, *words(name, model)]) == by_python(values)
    (shown,) = [param for param in RUN.params if option(name, model) in param.opts]
    assert shown.help
    assert shown.help == model.model_fields[name].description


def type_checkers_see_it(name: str, model: Model = BuildRequest) -> None:
    typed = get_type_hints(BuildOptions)[name]
    members = get_args(typed) if isinstance(typed, UnionType) else (typed,)
    assert set(members) == given_as(model.model_fields[name]) | READ.get(name, set())


#: What whoever calls reads: a path, and names of variables beside their values.
READ: Mapping[str, set[Any]] = {
    "network": {Mapping[str, Sequence[str]]},
    "source": {os.PathLike[str]},
    "secrets": {Sequence[str], Mapping[str, str | bytes]},
}


def given_as(field: FieldInfo) -> set[Any]:
    """The types that a field may be given in, by its annotation."""
    annotation = field.annotation
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]
    found: set[Any] = set()
    for member in members:
        kind = bare(member)
        marks = [*getattr(member, "__metadata__", ()), *field.metadata]
        input_types = [getattr(mark, "json_schema_input_type", Any) for mark in marks]
        if kind == Mapping[str, bytes]:
            continue
        if get_args(Seconds)[1] in marks:
            found |= set(get_args(units.Duration))
        elif get_args(Bytes)[1] in marks:
            found |= {str, int}
        elif get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, Enum)):
            found.add(str)
        else:
            found.add(
                next(
                    (
                        input_type
                        for input_type in input_types
                        if input_type not in (Any, PydanticUndefined)
                    ),
                    kind,
                )
            )
    return found


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("holds", [lands, command_line_says_it, type_checkers_see_it])
def test_each_field_is_an_option(name: str, holds: Callable[[str], None]) -> None:
    holds(name)


@pytest.mark.parametrize("name", IN_JOBS)
def test_each_field_that_a_job_may_have_is_a_key(name: str) -> None:
    job_says_it(name)


def test_no_front_has_an_option_that_is_no_field() -> None:
    assert list(BuildOptions.__annotations__.keys() - OPTIONS) == []
    assert jobfile.JobDefaults.model_fields.keys() == set(IN_JOBS)
    assert set(IN_JOBS) == set(OPTIONS) - {"name", "idempotency_key"}, "a job has its key as name"
    stored = {field.name for field in fields(BuildSpec)} - {"steps", "sandbox_ttl"}
    assert stored == {STORED.get(name, name) for name in OPTIONS}


def test_a_sandbox_has_each_option_that_is_not_of_steps() -> None:
    wanted = SandboxRequest.model_fields.keys() - set(requests.OF_STEPS)
    assert SandboxOptions.__annotations__.keys() == wanted
    taken = {word for param in COMMANDS["sandbox"].commands["create"].params for word in param.opts}
    assert {option(name, SandboxRequest) for name in wanted} - taken == set()


@pytest.mark.parametrize("holds", [lands, command_line_says_it, type_checkers_see_it, job_says_it])
def test_a_field_that_one_of_them_lacks_is_found(
    holds: Callable[[str, Model], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrunner.api.keywords.BuildRequest", Planted)
    errors = (KeyError, TypeError, ConfigError, typer.TyperException)
    with pytest.raises(errors, match="planted"):
        holds("planted", Planted)


def test_a_field_that_the_document_lacks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def but_spot(spec: BuildSpec) -> dict[str, Any]:
        return {name: value for name, value in spec_document(spec).items() if name != "spot"}

    monkeypatch.setattr("vmrunner.services.documents.spec_document", but_spot)
    with pytest.raises(KeyError, match="spot"):
        lands("spot")
