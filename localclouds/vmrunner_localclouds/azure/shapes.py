"""Validation of JSON against the types that Microsoft's own clients are made with. What they do not
know is an error, as there; what only the service writes is ignored in a request, as there."""

from __future__ import annotations

import types as builtin_types
import typing
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, Final, Union

import typing_extensions
from azure.mgmt.compute import models as compute_models
from azure.mgmt.compute import types as compute_types
from azure.mgmt.network import models as network_models
from azure.mgmt.network import types as network_types

from vmrunner_localclouds.azure import schedule_shapes

#: Name of a provider → where its types are, and the words that they know.
_MODULES: Final = {
    "Microsoft.Compute": (compute_types, compute_models),
    "Microsoft.Network": (network_types, network_models),
    "Microsoft.ComputeSchedule": (schedule_shapes, schedule_shapes),
}
_SCALARS: Final[Mapping[type, tuple[type, ...]]] = {
    str: (str,),
    bool: (bool,),
    int: (int,),
    float: (int, float),
}

#: Enums whose words are old: sizes come and go, and the service knows its own.
_OPEN: Final = frozenset({"VirtualMachineSizeTypes"})


class Misshapen(Exception):
    """`path` is the field, as in `properties.osProfile`; `unknown` the name that the type lacks."""

    def __init__(self, path: str, message: str, *, unknown: str = "", kind: str = "") -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message
        self.unknown = unknown
        self.kind = kind  # the name of the type that lacks it


def check(value: Any, provider: str, name: str) -> None:
    """Raises `Misshapen` with the first thing that type `name` does not allow in `value`."""
    _object(value, getattr(_MODULES[provider][0], name), "")


def _check(value: Any, hint: Any, path: str) -> None:
    origin: Any = typing.get_origin(hint)
    if origin is typing_extensions.Required:
        _check(value, typing.get_args(hint)[0], path)
    elif origin in (Union, builtin_types.UnionType):
        _either(value, typing.get_args(hint), path)
    elif origin is list:
        _list(value, typing.get_args(hint)[0], path)
    elif origin is dict:
        _map(value, typing.get_args(hint)[1], path)
    elif typing_extensions.is_typeddict(hint):
        _object(value, hint, path)
    elif hint in _SCALARS:
        _scalar(value, hint, path)


def _either(value: Any, hints: tuple[Any, ...], path: str) -> None:
    """One of the words of an enum, or null; the types say `str` too, the service does not."""
    enums = [hint for hint in hints if isinstance(hint, type) and issubclass(hint, Enum)]
    if enums and enums[0].__name__ not in _OPEN:
        _scalar(value, str, path)
        allowed = [str(member.value) for member in enums[0]]
        if value.lower() not in {word.lower() for word in allowed}:
            text = f"The value '{value}' is none of {', '.join(allowed)}."
            raise Misshapen(path, text)
    elif value is not None:
        _check(value, next(hint for hint in hints if hint is not type(None)), path)


def _scalar(value: Any, hint: type, path: str) -> None:
    if not isinstance(value, _SCALARS[hint]) or (isinstance(value, bool) and hint is not bool):
        text = f"Error converting value {value!r} to type '{hint.__name__}'."
        raise Misshapen(path, text)


def _list(value: Any, hint: Any, path: str) -> None:
    if not isinstance(value, list):
        raise Misshapen(path, f"Cannot deserialize {type(value).__name__} into a list.")
    for number, part in enumerate(value):
        _check(part, hint, f"{path}[{number}]")


def _map(value: Any, hint: Any, path: str) -> None:
    if not isinstance(value, dict):
        raise Misshapen(path, f"Cannot deserialize {type(value).__name__} into a dictionary.")
    for key, part in value.items():
        _check(part, hint, f"{path}.{key}")


def _object(value: Any, hint: Any, path: str) -> None:
    if not isinstance(value, dict):
        raise Misshapen(path, f"Cannot deserialize {type(value).__name__} into an object.")
    hints = _hints(hint)
    for key, part in value.items():
        where = f"{path}.{key}" if path else key
        if key not in hints:
            raise Misshapen(where, "It is not known.", unknown=key, kind=hint.__name__)
        if part is not None:
            _check(part, hints[key], where)
    for key, part in hints.items():
        origin: Any = typing.get_origin(part)
        if origin is typing_extensions.Required and value.get(key) is None:
            where = f"{path}.{key}" if path else key
            raise Misshapen(where, f"Required parameter '{where}' is missing (null).")


@cache
def _hints(hint: Any) -> Mapping[str, Any]:
    """Field → type of it. A name is looked for among the types first, then among the enums."""
    for own, models in _MODULES.values():
        if hint.__module__ == own.__name__:
            names = {**vars(models), **vars(own)}
            return typing_extensions.get_type_hints(hint, globalns=names, include_extras=True)
    raise LookupError(hint)
