"""Fields of pydantic's that hold a network policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema

from vmrunner.config import network_policy
from vmrunner.config.validation_errors import FieldError, option_name
from vmrunner.errors import ConfigError
from vmrunner.model import NetworkPolicy


def _validated(value: Any, info: ValidationInfo) -> NetworkPolicy:
    try:
        return network_policy.policy(value, option_name(info))
    except ConfigError as error:
        short = str(value).startswith(network_policy.IN_ONE_WORD)
        words = not (short or isinstance(value, Mapping))
        listed = "neither 'open' nor 'none' nor a table with `allow`; such as none"
        raise FieldError(error, in_file=listed if words else "") from None


#: The type of a field that holds one.
Policy = Annotated[
    NetworkPolicy,
    BeforeValidator(_validated),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": network_policy.WORDS, "type": "string"},
                {"pattern": f"^{network_policy.IN_ONE_WORD}.", "type": "string"},
                {
                    "additionalProperties": False,
                    "properties": {
                        "allow": {
                            "description": "HOST, HOST:PORT, *.HOST or *.HOST:PORT.",
                            "items": {"type": "string"},
                            "maxItems": network_policy.MOST_HOSTS,
                            "minItems": 1,
                            "type": "array",
                        }
                    },
                    "required": ["allow"],
                    "type": "object",
                },
            ]
        }
    ),
]
