"""Words of queries, as the OpenAPI document tells them. What takes them checks them itself: its
answers name the fix."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from pydantic import Field, WithJsonSchema

from vmrunner.lib.config_section import Seconds
from vmrunner.lib.units import LABEL_CHARACTERS
from vmrunner.model import BuildState, Result
from vmrunner.services.build_filter import ACTIVE

_DAY: Final = "[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
_TIME: Final = "T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-]0[0-9]:[0-5][0-9])"
_SPAN: Final = "[0-9]{1,6}(\\.[0-9]{1,3})?(ms|s|m|h)?|[0-9]{1,3}(d|w)"
_DURATION: Final = f"^({_SPAN})$"
_LABEL: Final = "^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?"

State: TypeAlias = Annotated[
    str, Field(json_schema_extra={"enum": [*(state.value for state in BuildState), ACTIVE]})
]
Outcome: TypeAlias = Annotated[
    str, Field(json_schema_extra={"enum": [result.value for result in Result]})
]
Name: TypeAlias = Annotated[str, Field(json_schema_extra={"pattern": "^[!-)+-~]+$"})]
#: A name, or the beginning of one and `*`.
NamePattern: TypeAlias = Annotated[str, Field(json_schema_extra={"pattern": "^[!-)+-~]+[*]?$"})]
Moment: TypeAlias = Annotated[
    str, Field(json_schema_extra={"pattern": f"^({_DAY}({_TIME})?|{_SPAN})$"})
]
Duration: TypeAlias = Annotated[str, Field(json_schema_extra={"pattern": _DURATION})]
Span: TypeAlias = Annotated[
    Seconds,
    WithJsonSchema(
        {
            "type": ["string", "number"],
            "description": "30m, 1h30m, 90s, or seconds",
            "minimum": 0,
            "pattern": _DURATION,
        }
    ),
]
Label: TypeAlias = Annotated[
    str, Field(json_schema_extra={"pattern": f"{_LABEL}=[ -~]{{0,{LABEL_CHARACTERS}}}$"})
]
Provider: TypeAlias = Annotated[str, Field(json_schema_extra={"minLength": 1})]
Pair: TypeAlias = Annotated[str, Field(json_schema_extra={"pattern": "^[^=]+="})]
Grouping: TypeAlias = Annotated[
    str, Field(json_schema_extra={"pattern": f"^(provider|day|label:{_LABEL[1:]})$"})
]
