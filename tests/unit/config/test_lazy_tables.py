"""A late union is to its users what pydantic's own union is, and loads only what is used."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from vmrunner.config.lazy_tables import LateUnion
from vmrunner.lib.config_section import Seconds, Section


class Inner(Section):
    name: str | None = None


class Cat(Section):
    kind: Literal["cat"] = "cat"
    age: Seconds = 1.0
    inner: Inner | None = None


class Dog(Section):
    kind: Literal["dog"] = "dog"
    owner: Owner | None = None


class Owner(Section):
    name: str


TABLES = {"cat": Cat, "dog": Dog}
LATE = LateUnion(TABLES.get, TABLES.values)


class Late(Section):
    pets: dict[str, Annotated[Section, LATE]] = Field(default_factory=dict)


class Plain(Section):
    pets: dict[str, Annotated[Cat | Dog, Field(discriminator="kind")]] = Field(default_factory=dict)


def errors(model: type[BaseModel], pet: object) -> list[Any]:
    with pytest.raises(ValidationError) as refused:
        model.model_validate({"pets": {"mine": pet}})
    return refused.value.errors(include_url=False, include_context=False)


@pytest.mark.parametrize(
    "pet",
    [
        {"kind": "cat", "agee": 1},
        {"kind": "cat", "age": "old", "inner": {"nam": 1}},
        {"kind": "dog", "owner": {}},
        {"kind": "cow"},
        {"kind": 1},
        {"kind": ["cat"]},
        {},
        [],
        "cat",
        None,
        Inner(),
    ],
    ids=str,
)
def test_it_refuses_as_the_union_does(pet: object) -> None:
    assert errors(Late, pet) == errors(Plain, pet)


@pytest.mark.parametrize("mode", ["python", "json"])
def test_it_reads_and_writes_as_the_union_does(mode: str) -> None:
    values = {
        "a": {"kind": "cat", "age": "2m", "inner": {}},
        "b": {"kind": "dog", "owner": {"name": "x"}},
        "c": Cat(age=3.0),
    }
    late, plain = Late.model_validate({"pets": values}), Plain.model_validate({"pets": values})
    assert late.pets == plain.pets
    for none in (False, True):
        how: dict[str, Any] = {"mode": mode, "exclude_none": none}
        assert late.model_dump(**how) == plain.model_dump(**how)


def test_it_has_the_schema_of_the_union() -> None:
    assert Late.model_json_schema() | {"title": ""} == Plain.model_json_schema() | {"title": ""}


def test_only_what_is_used_is_loaded() -> None:
    loaded: list[str] = []

    def find(kind: str) -> type[BaseModel]:
        loaded.append(kind)
        return TABLES[kind]

    def members() -> list[type[BaseModel]]:
        raise AssertionError("it needs no other")

    class Lazy(Section):
        pets: dict[str, Annotated[Section, LateUnion(find, members)]]

    assert Lazy.model_validate({"pets": {"mine": {"kind": "cat"}}}).pets == {"mine": Cat()}
    assert loaded == ["cat"]
