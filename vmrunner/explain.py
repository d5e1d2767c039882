"""What pydantic found, as one line: field, value, place and fix. Shared by every kind of file."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from vmrunner import units
from vmrunner.errors import ConfigError

Where = tuple[str | int, ...]


def explained(
    error: ValidationError,
    model: type[BaseModel],
    place: Callable[[Where], str],
    *,
    hide: Callable[[str], bool] = lambda name: "secret" in name,
) -> ConfigError:
    """The first thing that is wrong. `place` says where a path was written ("FILE:LINE: " or
    "FILE: ", or ""); the values of fields that `hide` picks are not repeated."""
    first = error.errors(include_url=False)[0]
    where = _without_tags(first["loc"], model)
    name = dotted(where)
    prefix = place(where)
    kind = first["type"]
    if kind == "extra_forbidden":
        return ConfigError(
            f"{prefix}{name}: no such key",
            hint=units.meant(str(where[-1]), keys_at(model, first["loc"][:-1])),
        )
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        context: Mapping[str, Any] = first.get("ctx") or {}
        field = str(context.get("discriminator", "kind")).strip("'")
        tags = sorted(tags_at(model, first["loc"]))
        said = f"no {field} {context['tag']!r}" if "tag" in context else "missing"
        return ConfigError(f"{prefix}{name}.{field}: {said}", hint=f"one of: {', '.join(tags)}")
    if kind == "missing":
        return ConfigError(f"{prefix}{name}: missing", hint="it is needed")
    message = str(first["msg"]).removeprefix("Value error, ")
    text, _, fix = message.partition("; ")
    value = "" if hide(name) else f" {_short(first['input'])}:"
    return ConfigError(f"{prefix}{name}:{value} {text[:1].lower()}{text[1:]}", hint=fix)


def dotted(where: Where) -> str:
    """jobs.test.steps[2].run"""
    text = ""
    for part in where:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if part.isprintable() else repr(part)
            text += f".{name}" if text else name
    return text or "the file"


def keys_at(model: Any, loc: Where) -> list[str]:
    """The valid keys of the table at this place of pydantic's (tags of unions are part of it)."""
    found = _at(model, loc)
    members = [m for m in _members(found) if isinstance(m, type) and issubclass(m, BaseModel)]
    return [field for member in members for field in member.model_fields]


def tags_at(model: Any, loc: Where) -> set[str]:
    """The values that choose between the members of the union at this place."""
    return {tag for member in _members(_at(model, loc)) for tag in _tags(member)}


def _at(model: Any, loc: Where) -> Any:
    here = model
    for part in loc:
        here = _into(here, part)
    return here


def _into(here: Any, part: str | int) -> Any:
    here = _bare(here)
    if isinstance(here, type) and issubclass(here, BaseModel):
        return here.model_fields[str(part)].annotation
    origin = get_origin(here)
    if origin in (dict, list, tuple, Sequence, Mapping):
        arguments = get_args(here)
        return arguments[1] if origin in (dict, Mapping) else arguments[0]
    members = _members(here)
    tagged = [member for member in members if part in _tags(member)]
    return tagged[0] if tagged else _into(next(m for m in members if m is not type(None)), part)


def _bare(here: Any) -> Any:
    return get_args(here)[0] if get_origin(here) is Annotated else here


def _members(here: Any) -> tuple[Any, ...]:
    here = _bare(here)
    if get_origin(here) in (Union, types.UnionType):
        return get_args(here)
    return (here,)


def _tags(member: Any) -> tuple[str, ...]:
    if not (isinstance(member, type) and issubclass(member, BaseModel)):
        return ()
    field = member.model_fields.get("kind")
    is_tag = field is not None and get_origin(field.annotation) is Literal
    return get_args(field.annotation) if field is not None and is_tag else ()


def _without_tags(loc: Where, model: Any) -> Where:
    """Pydantic puts the tag of a union into the path; nobody wrote it there."""
    shown: list[str | int] = []
    here = model
    for part in loc:
        members = _members(here)
        if len(members) > 1 and any(part in _tags(member) for member in members):
            here = _into(here, part)
            continue
        shown.append(part)
        try:
            here = _into(here, part)
        except (KeyError, IndexError, StopIteration):
            here = None
    return tuple(shown)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
