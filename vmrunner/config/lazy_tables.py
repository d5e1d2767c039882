"""Tables that are loaded when they are in use: one, and the members of a union."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, SchemaValidator, core_schema

Table = type[BaseModel]

_TAG: Final = "kind"


class LateTable:
    """Annotates a field that holds a table, or None where it is not set. `load` gives its
    type."""

    def __init__(self, load: Callable[[], Table]) -> None:
        self.load = load

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.nullable_schema(
            core_schema.no_info_plain_validator_function(
                lambda value: self.load().__pydantic_validator__.validate_python(value)
            )
        )

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(self.load().__pydantic_core_schema__)


class LateUnion:
    """Annotates a field that holds the table which `find` has for its `kind`. Where it has none,
    and in the JSON Schema, the field is the union of `members`, told apart by `kind`."""

    def __init__(
        self, find: Callable[[str], Table | None], members: Callable[[], Iterable[Table]]
    ) -> None:
        self._find = find
        self._members = members

    def union(self) -> Any:
        """Return the union of all members, which loads them."""
        return reduce(or_, self._members())

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(self._whole().core_schema)

    def _validate(self, value: Any) -> Any:
        kind = value.get(_TAG) if isinstance(value, Mapping) else getattr(value, _TAG, None)
        table = self._find(kind) if isinstance(kind, str) else None
        if isinstance(kind, str) and table is not None:
            return _alone(kind, table).validate_python(value)
        return self._whole().validate_python(value)

    def _whole(self) -> TypeAdapter[Any]:
        whole: Any = Annotated[self.union(), Field(discriminator=_TAG)]
        return TypeAdapter(whole)


@cache
def _alone(kind: str, table: Table) -> SchemaValidator:
    """Validates as the union does, of which this is one member: paths of errors have the kind."""
    table.model_rebuild()  # only if it names what its module defines after it
    choices = {kind: table.__pydantic_core_schema__}
    return SchemaValidator(core_schema.tagged_union_schema(choices, _TAG))
