"""The part of OData filters that clients use: comparisons with `eq`, joined by `and`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from vmrunner_localclouds.azure.api_error import ArmRefusal, Json

_TERM: Final = re.compile(
    r"\s*(?:(?P<field>[\w/]+)\s+(?P<how>eq|ne)\s+'(?P<value>(?:[^']|'')*)'"
    r"|contains\(\s*(?P<part>\w+)\s*,\s*'(?P<within>(?:[^']|'')*)'\s*\))\s*"
)
_JOINT: Final = re.compile(r"\s+(and|or)\s+", re.IGNORECASE)

Wanted = Callable[[Json], bool]


def equal(text: str, field: str) -> str:
    """The value that a field must have; empty: any. Raises `ArmRefusal`."""
    for terms in _parsed(text):
        for name, how, value in terms:
            if name.lower() == field.lower() and how == "eq":
                return value
    return ""


def of_prices(text: str) -> Wanted:
    """The test of a price list: `and` binds more than `or`. Case counts."""
    choices = _parsed(text)

    def wanted(item: Json) -> bool:
        return not choices or any(all(_holds(item, *term) for term in terms) for terms in choices)

    return wanted


def of_resources(text: str) -> Wanted:
    """The test of a list of resources: by type, and by one tag."""
    choices = _parsed(text)
    criteria = {name.lower(): value for terms in choices for name, _, value in terms}
    if unknown := set(criteria) - {"resourcetype", "tagname", "tagvalue", "location", "name"}:
        text = f"The filter '{text}' is not valid: {', '.join(sorted(unknown))}."
        raise ArmRefusal(400, "InvalidFilterInQueryString", text)
    if "tagname" in criteria and set(criteria) - {"tagname", "tagvalue"}:
        text = "A filter by tag can be combined with no other."
        raise ArmRefusal(400, "InvalidFilterInQueryString", text)

    def wanted(item: Json) -> bool:
        tags = item.get("tags") or {}
        if "tagname" in criteria:
            has = criteria["tagname"] in tags
            return (
                has
                and criteria.get("tagvalue", tags[criteria["tagname"]]) == tags[criteria["tagname"]]
            )
        kept = {"resourcetype": item["type"], "location": item["location"], "name": item["name"]}
        return all(kept[name].lower() == value.lower() for name, value in criteria.items())

    return wanted


def _holds(item: Json, name: str, how: str, value: str) -> bool:
    has = str(item.get(name, ""))
    if how == "contains":
        return value in has
    return (has == value) == (how == "eq")


def _parsed(text: str) -> list[list[tuple[str, str, str]]]:
    """Choices, each a list of field, `eq` or `ne` or `contains`, and value."""
    if not text.strip():
        return []
    parts = _JOINT.split(text)
    choices: list[list[tuple[str, str, str]]] = [[_term(parts[0], text)]]
    for joint, part in zip(parts[1::2], parts[2::2], strict=True):
        if joint.lower() == "or":
            choices.append([])
        choices[-1].append(_term(part, text))
    return choices


def _term(part: str, text: str) -> tuple[str, str, str]:
    found = _TERM.fullmatch(part)
    if found is None:
        raise ArmRefusal(400, "InvalidFilterInQueryString", f"Invalid $filter '{text}'.")
    if found["part"]:
        return found["part"], "contains", found["within"].replace("''", "'")
    return found["field"], found["how"], found["value"].replace("''", "'")
