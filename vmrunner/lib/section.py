"""Base of the tables of a configuration, on pydantic."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

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


class Section(BaseModel):
    """A table of the configuration: an unknown key is an error, a value never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
