"""Options and arguments whose values are plain. Typer loads pydantic for any value, which takes as
long as all else that a command does: so what is plainly right is taken here, and it has the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Protocol

from typer.core import TyperArgument, TyperOption


class Coercion(Protocol):
    """Maker of the value of an option or argument, as Typer asks it."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value of what was written. Raises Typer's errors."""


class PlainOption(TyperOption):
    """An option."""

    def get_runtime_param(self) -> Any:
        return PlainCoercion(super().get_runtime_param)


class PlainArgument(TyperArgument):
    """An argument, whose help does not tell what Python holds it in (`<list[str]>`)."""

    def display_type_rich(self, ctx: Any) -> None:  # noqa: ARG002 - as it is called
        return None

    def get_runtime_param(self) -> Any:
        return PlainCoercion(super().get_runtime_param)


def make_plain(command: Any) -> Any:
    """The same command, with all below it, whose options and arguments are plain."""
    for param in command.params:
        param.__class__ = PlainArgument if isinstance(param, TyperArgument) else PlainOption
    help_option = command.get_help_option

    def plain_help(context: Any) -> Any:
        option = help_option(context)
        if option is not None:
            option.__class__ = PlainOption
        return option

    command.get_help_option = plain_help
    for below in getattr(command, "commands", {}).values():
        make_plain(below)
    return command


#: No value of an option.
_DOUBT: Final = object()


class PlainCoercion:
    """The values of words that are plainly right. `theirs`: Typer's own coercion."""

    def __init__(self, theirs: Callable[[], Coercion]) -> None:
        self._theirs = theirs

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value of what was written. Raises Typer's errors."""
        descriptor = param.type_descriptor
        if param.multiple or param.nargs == -1:
            if value is None:
                return ()
            texts = isinstance(value, (list, tuple)) and all(type(word) is str for word in value)
            if texts and descriptor.annotation == list[str]:
                return list(value)
        else:
            found = _value(descriptor, value)
            if found is not _DOUBT:
                return found
        return self._theirs().coerce(value, param=param, ctx=ctx)


def _value(descriptor: Any, value: Any) -> Any:
    """The value of one word, or `_DOUBT`."""
    kind = descriptor.annotation
    if value is None or (kind is str and type(value) is str):
        return value
    if isinstance(kind, type) and issubclass(kind, Enum):
        if isinstance(value, kind):
            return value
        return next((member for member in kind if member.value == value), _DOUBT)
    if kind is int and type(value) is str and value.isascii() and value.isdecimal():
        value = int(value) if len(value) < _DIGITS and value[0] != "0" else _DOUBT
    if kind is int and type(value) is int:
        least, most = descriptor.parameter_info.min, descriptor.parameter_info.max
        if (least is None or value >= least) and (most is None or value <= most):
            return value
    return _DOUBT


_DIGITS: Final = 16  # of a number that is a plain one
