"""Fields of pydantic's that hold a network policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema

from vmrunner.config import network_policy
from vmrunner.config.validation_errors import FieldError, option_name
from vmrunner.errors import ConfigError
from vmrunner.model import NetworkPolicy

# What `network_policy` takes, as far as a pattern can say it that every validator of JSON Schema
# reads: names with a dot, whose last part is no number, and no port of those that tell no name; of
# international names nothing but that they are such.
_INNER: Final = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_LAST: Final = f"(?![0-9]+([:,]|$)){_INNER}"
_PORT: Final = "(?!0*(0|22|53)($|,))[0-9]{1,5}"
_ENTRY: Final = f"([*]\\.)?({_INNER}\\.)+{_LAST}(:{_PORT})?"
_BEYOND_ASCII: Final = ".*[^\\u0000-\\u007f]"
_ENTRIES: Final = f"^({_ENTRY}$|{_BEYOND_ASCII})"
_IN_ONE_WORD: Final = f"^{network_policy.IN_ONE_WORD}({_ENTRY}(,{_ENTRY})*$|{_BEYOND_ASCII})"


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
                {"pattern": _IN_ONE_WORD, "type": "string"},
                {
                    "additionalProperties": False,
                    "properties": {
                        "allow": {
                            "description": "HOST, HOST:PORT, *.HOST or *.HOST:PORT.",
                            "items": {"pattern": _ENTRIES, "type": "string"},
                            "maxItems": network_policy.MOST_HOSTS,
                            "minItems": 1,
                            "type": "array",
                            "uniqueItems": True,
                        }
                    },
                    "required": ["allow"],
                    "type": "object",
                },
            ]
        }
    ),
]
