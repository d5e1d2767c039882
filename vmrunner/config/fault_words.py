"""Faults that pydantic finds, in plain words: the one place that translates them, for files,
bodies, query parameters, options and arguments of tools."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from vmrunner.lib import units

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_YES_NO: Final = ("neither true nor false", "write one of the two")
_WHOLE: Final = ("not a whole number", "such as 1")
_NUMBER: Final = ("not a number", "such as 1.5")
_TEXT: Final = ("not text", "put it in quotes")
_TABLE: Final = ("not a table", "give names with their values")
_LIST: Final = ("not a list", "write [VALUE, …]")
_EMPTY: Final = ("empty", "give it a value, or leave it out")
_CHOICE: Final = ("not one of them", "one of: {expected}")
_URL: Final = ("not a URL", "such as https://example.org/path")
#: Kinds of pydantic's faults: the fault, after "VALUE: " or "VALUE is ", and its fix.
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "bool_parsing": _YES_NO,
    "bool_type": _YES_NO,
    "bytes_type": _TEXT,
    "dict_type": _TABLE,
    "enum": _CHOICE,
    "finite_number": _NUMBER,
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "frozen_set_type": _LIST,
    "greater_than": ("too low", "more than {gt}"),
    "greater_than_equal": ("too low", "at least {ge}"),
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": ("too large a number", "such as 1"),
    "int_type": _WHOLE,
    "json_invalid": ("not JSON", ""),
    "json_type": ("not JSON", ""),
    "less_than": ("too high", "less than {lt}"),
    "less_than_equal": ("too high", "at most {le}"),
    "list_type": _LIST,
    "literal_error": _CHOICE,
    "mapping_type": _TABLE,
    "missing": ("missing", "it is needed"),
    "model_attributes_type": _TABLE,
    "model_type": _TABLE,
    "multiple_of": ("not a multiple of {multiple_of}", ""),
    "set_type": _LIST,
    "string_pattern_mismatch": ("not of that form", "it matches {pattern}"),
    "string_too_long": ("too long", "at most {max_length} characters"),
    "string_too_short": _EMPTY,
    "string_type": _TEXT,
    "string_unicode": ("not UTF-8", "pass it as a file"),
    "too_long": ("too many", "at most {max_length}"),
    "too_short": ("empty", "at least {min_length}"),
    "tuple_type": _LIST,
    "url_parsing": _URL,
    "url_scheme": _URL,
    "url_too_long": _URL,
    "url_type": _URL,
}
#: What to write for one of these patterns.
_FORMS: Final[Mapping[str, str]] = {
    "^b-": "the `next` of the page before",
    "^vm-": "the `next` of the page before",
    r"^[^\n]*$": "write one line",
}
#: Words that pydantic puts before those of whoever checked.
_THEIRS: Final = re.compile(r"\A(Value error|Assertion failed), ")
#: Who calls, in a URL.
_CALLER: Final = re.compile(r"(?<=://)[^/?#\s]*@")
_LONGEST_VALUE: Final = 60  # characters that are shown of a value


def in_words(fault: ErrorDetails) -> tuple[str, str]:
    """A fault and its fix, "" where there is none to tell."""
    kind, context = fault["type"], fault.get("ctx") or {}
    if kind in ("value_error", "assertion_error"):  # "not a duration; FIX": somebody's own words
        text, _, fix = _THEIRS.sub("", fault["msg"]).partition("; ")
        return text, fix
    text, fix = _WORDS.get(kind, ("not what is expected here", ""))
    if "pattern" in context:
        fix = _FORMS.get(str(context["pattern"]), fix)
    if "expected" in context:
        names = re.findall(r"'([^']*)'", str(context["expected"]))
        fix = units.did_you_mean(str(fault["input"]), names) if names else fix
    shown = {name: _number(value) for name, value in context.items()}
    return text.format(**shown), fix.format(**shown)


def _number(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def written(value: object) -> str:
    """A value as a file or a body has it, cut short, in one line. A password in a URL is left
    out."""
    text = repr(value)
    if not isinstance(value, str | bytes):
        try:
            text = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError):
            text = f"'{value}'"
    short = shortened(_CALLER.sub("***@", text))
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in short)


def shortened(text: str) -> str:
    """A text, cut to what is shown of a value."""
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
