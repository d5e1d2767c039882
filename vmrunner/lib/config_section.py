"""Base of the tables of a configuration, on pydantic."""

from __future__ import annotations

from typing import Annotated, Final, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, StrictInt, WithJsonSchema

from vmrunner.errors import ConfigError
from vmrunner.lib import units


def _seconds(value: object) -> float:
    try:
        return units.duration(value)
    except ConfigError as error:
        raise ValueError(f"not a duration; {error.hint}") from None


def _bytes(value: object) -> int:
    try:
        return units.size(value)
    except ConfigError as error:
        raise ValueError(f"not a size; {error.hint}") from None


def _flag(value: object) -> object:
    """Take true and false, as an environment variable has them too, and nothing that looks like
    them: "yes", "on", 1."""
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ValueError("neither true nor false; write one of the two, without quotes in a file")


def _whole(value: object) -> object:
    """Take 128.0 for the whole number that it is, as JSON has it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def number(value: object) -> object:
    """Refuse `true` where a number is wanted, before it is taken for 1."""
    if not isinstance(value, bool):
        return value
    raise ValueError("neither true nor false is a number; such as 1")


Whole = Annotated[StrictInt, BeforeValidator(_whole, json_schema_input_type=int)]
Flag = Annotated[bool, BeforeValidator(_flag, json_schema_input_type=bool)]
Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema(
        {"type": ["string", "number"], "description": "30m, 1h30m, 90s, or seconds", "minimum": 0}
    ),
]
Bytes = Annotated[
    int,
    BeforeValidator(_bytes),
    WithJsonSchema(
        {"type": ["string", "integer"], "description": "512MiB, 4GiB, or bytes", "minimum": 0}
    ),
]
_UNITS: Final = {get_args(Seconds)[1]: "seconds", get_args(Bytes)[1]: "bytes"}


def unit(model: type[BaseModel], name: str) -> str:
    """The unit of the number in this field: "seconds", "bytes" or ""."""
    field = model.model_fields.get(name)
    if field is None:
        return ""
    parts = get_args(field.annotation)
    marks = [mark for part in parts for mark in getattr(part, "__metadata__", ())]
    return next((_UNITS[mark] for mark in (*field.metadata, *marks) if mark in _UNITS), "")


class Section(BaseModel):
    """A table of the configuration: an unknown key is an error, a value never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
