"""Errors of pydantic, as one line: field, value, place and fix. Shared by every kind of file."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ValidationError, ValidationInfo

from vmrunner.config.fault_words import in_words, shortened, written
from vmrunner.config.lazy_tables import LateTable, LateUnion
from vmrunner.config.placed_faults import placed, together
from vmrunner.errors import ConfigError
from vmrunner.lib import units

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Where = tuple[str | int, ...]

MOST_FAULTS: Final = 50  # faults that are told at once: each is looked at for what was meant


class FieldError(ValueError):
    """A finding of the check of a single field, for pydantic to carry."""

    def __init__(self, error: ConfigError, *, in_file: str = "") -> None:
        super().__init__(in_file or str(error))
        self.error = error
        self.in_file = in_file


def option_name(info: ValidationInfo) -> str:
    """The name that errors give the field that is checked."""
    return (info.field_name or "value").replace("_", "-")


#: A check of `field_checks` or `units`: it gets a value and what errors call its field.
Check = Callable[[Any, str], Any]


def checked(check: Check) -> AfterValidator:
    """A check whose complaint pydantic carries; the value stays."""

    def validate(value: Any, info: ValidationInfo) -> Any:
        _called(check, value, info)
        return value

    return AfterValidator(validate)


def converted(check: Check, *, input_type: Any = Any) -> BeforeValidator:
    """The same for a check whose answer is the value. `input_type`: the type that is passed in."""

    def validate(value: Any, info: ValidationInfo) -> Any:
        return _called(check, value, info)

    return BeforeValidator(validate, json_schema_input_type=input_type)


def _called(check: Check, value: Any, info: ValidationInfo) -> Any:
    try:
        return check(value, option_name(info))
    except ConfigError as error:
        raise FieldError(error) from None


def spoken(error: ValidationError, options: Collection[str]) -> ConfigError:
    """The first thing that is wrong with what Python or the command line passed. `options`: the
    fields that there are."""
    first = error.errors(include_url=False)[0]
    kind, context = first["type"], first.get("ctx") or {}
    if isinstance(cause := context.get("error"), FieldError):
        return cause.error
    name = str(first["loc"][0])
    if kind == "extra_forbidden":
        return ConfigError(f"{name}: no such option", hint=units.did_you_mean(name, options))
    name = name.replace("_", "-")
    text, fix = in_words(first)
    if kind == "string_too_short":
        return ConfigError(f"{name}: {text}", hint=fix)
    return ConfigError(f"{name}: {shortened(repr(first['input']))} is {text}", hint=fix)


def explained(
    error: ValidationError,
    model: type[BaseModel],
    place: Callable[[Where], str],
    *,
    hide: Callable[[str], bool] = lambda name: "secret" in name,
) -> ConfigError:
    """All that is wrong, together, or the first `MOST_FAULTS` of it. `place` says where a path was
    written, as `placed` takes it; the values of fields that `hide` picks are not repeated."""
    found = error.errors(include_url=False)[:MOST_FAULTS]
    foreign = [detail["loc"] for detail in found if detail["type"] == "extra_forbidden"]
    return together(
        _explained(detail, model, place, hide)
        for detail in found
        # Of a key that is misspelt that one is told.
        if detail["type"] != "missing" or not _misspelt(detail["loc"], foreign)
    )


def _misspelt(missing: Where, foreign: Sequence[Where]) -> bool:
    beside = [str(loc[-1]) for loc in foreign if loc[:-1] == missing[:-1]]
    return bool(units.nearest(str(missing[-1]), beside))


def _explained(
    first: ErrorDetails,
    model: type[BaseModel],
    place: Callable[[Where], str],
    hide: Callable[[str], bool],
) -> ConfigError:
    loc = first["loc"]
    if loc[-1:] == ("[key]",) and first["type"] != "extra_forbidden":
        loc = loc[:-1]  # what is wrong is a key itself
    where = _without_tags(loc, model)
    return placed(_in_words(first, loc, where, model, hide), place(where))


def _in_words(
    first: ErrorDetails,
    loc: Where,
    where: Where,
    model: type[BaseModel],
    hide: Callable[[str], bool],
) -> ConfigError:
    kind, name = first["type"], dotted(where)
    context: Mapping[str, Any] = first.get("ctx") or {}
    if kind == "extra_forbidden":
        return ConfigError(
            f"{name}: no such key",
            hint=units.did_you_mean(str(where[-1]), keys_at(model, loc[:-1])),
        )
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        field = str(context.get("discriminator", "kind")).strip("'")
        keys = first["input"] if isinstance(first["input"], dict) else ()
        if kind == "union_tag_not_found" and (near := units.nearest(field, map(str, keys))):
            hint = f"did you mean {field!r}?"
            return ConfigError(f"{name}.{near}: no such key", hint=hint)
        tags = sorted(tags_at(model, loc))
        reason = f"no {field} {context['tag']!r}" if "tag" in context else "missing"
        return ConfigError(f"{name}.{field}: {reason}", hint=f"one of: {', '.join(tags)}")
    if isinstance(cause := context.get("error"), FieldError) and not cause.in_file:
        text = str(cause.error.args[0]).partition(": ")[2]
        spoken_value = shortened(repr(first["input"]))  # as a check says what Python passed
        if text.startswith(spoken_value):
            text = written(first["input"]) + text.removeprefix(spoken_value)
        return ConfigError(f"{name}: {text}", hint=cause.error.hint)
    text, fix = in_words(first)
    absent = kind == "missing" or first["input"] is None or hide(name)
    value = "" if absent else f" {written(first['input'])}:"
    return ConfigError(f"{name}:{value} {text}", hint=fix)


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
        field = here.model_fields[str(part)]
        late = [item for item in field.metadata if isinstance(item, LateTable)]
        return late[0].load() if late else field.annotation
    origin = get_origin(here)
    if origin in (dict, list, tuple, Sequence, Mapping):
        arguments = get_args(here)
        return arguments[1] if origin in (dict, Mapping) else arguments[0]
    members = _members(here)
    tagged = [member for member in members if part in _tags(member)]
    return tagged[0] if tagged else _into(next(m for m in members if m is not type(None)), part)


def _bare(here: Any) -> Any:
    if get_origin(here) is not Annotated:
        return here
    late = [item for item in here.__metadata__ if isinstance(item, LateUnion)]
    return late[0].union() if late else get_args(here)[0]


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
    """Pydantic puts the tag of a union into the path; no user wrote it there."""
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
