"""Values of dataclasses out of JSON, where it is exactly what their types say. Whatever else it may
be is left to who knows better, and takes longer to load. Pure."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Final, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")

Reader = Callable[[Any], Any]
_SCALARS: Final = (str, int, bool, types.NoneType)


class Doubt(Exception):
    """A value that is not exactly what its type says, or a type that is none of those here."""


def value_of(kind: type[T], text: str) -> T:
    """The value that a text is. Raises Doubt."""
    if "\\ud" in text.lower():  # half a character, perhaps
        raise Doubt
    try:
        value: T = reader(cast("Any", kind))(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise Doubt from error
    return value


@cache
def reader(kind: Any) -> Reader:
    """A reader of what `json.loads` made of such a value. Raises Doubt, as what it returns does."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind in _SCALARS:
        return _scalar(kind)
    if kind is float:
        return _float
    if origin in (Union, types.UnionType):
        return _union(tuple(map(_member, parts)))
    if origin is tuple and parts[1:] == (...,):
        return _tuple(reader(parts[0]))
    if origin is Mapping and parts[0] is str:
        return _mapping(reader(parts[1]))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum(kind)
    if is_dataclass(kind):
        return _dataclass(kind)
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _named_tuple(kind)
    raise Doubt


def _member(kind: Any) -> Reader | None:
    """The reader of a member of a union; None: nothing that JSON has at once is one."""
    try:
        return reader(kind)
    except Doubt:
        return None


def _scalar(kind: type) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise Doubt
        return value

    return read


def _float(value: Any) -> float:
    if type(value) not in (float, int):
        raise Doubt
    return float(value)


def _union(members: tuple[Reader | None, ...]) -> Reader:
    def read(value: Any) -> Any:
        found = []
        for member in members:
            if member is not None:
                try:
                    found.append(member(value))
                except Doubt:
                    continue
        if len(found) != 1 or (None in members and type(value) is int):
            raise Doubt
        return found[0]

    return read


def _tuple(item: Reader) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not list:
            raise Doubt
        return tuple(map(item, value))

    return read


def _mapping(item: Reader) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise Doubt
        return {name: item(each) for name, each in value.items()}

    return read


def _enum(kind: type[Enum]) -> Reader:
    members = {member.value: member for member in kind}

    def read(value: Any) -> Any:
        if type(value) is not str or value not in members:
            raise Doubt
        return members[value]

    return read


def _dataclass(kind: Any) -> Reader:
    hints = get_type_hints(kind)
    readers = {field.name: reader(hints[field.name]) for field in fields(kind)}
    needed = {
        field.name
        for field in fields(kind)
        if field.default is MISSING and field.default_factory is MISSING
    }

    def read(value: Any) -> Any:
        if type(value) is not dict or needed - value.keys() or value.keys() - readers.keys():
            raise Doubt
        try:
            return kind(**{name: readers[name](each) for name, each in value.items()})
        except (TypeError, ValueError) as error:
            raise Doubt from error

    return read


def _named_tuple(kind: Any) -> Reader:
    hints = get_type_hints(kind)
    readers = [reader(hints[name]) for name in kind._fields]

    def read(value: Any) -> Any:
        if type(value) is not list or len(value) != len(readers):
            raise Doubt
        return kind(*(each(part) for each, part in zip(readers, value, strict=True)))

    return read
