"""Selectors of lists and watches: by labels (apimachinery pkg/labels/selector.go) and by the few
fields that each kind has."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from vmrunner_localclouds.kube.api_error import Json, bad_request
from vmrunner_localclouds.kube.kinds import EVENTS, JOBS, PODS, SECRETS, Kind

Match = Callable[[Json], bool]

_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_PREFIX: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_LABELS: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or "
    "'12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_KEYS: Final = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_TERM: Final = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<no>[^\s,=!()]+)"
    r"|(?P<key>[^\s,=!()]+)(?:\s*(?P<op>==|=|!=)\s*(?P<value>[^\s,()]*)"
    r"|\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*"
)
_FIELDS: Final[Mapping[Kind, tuple[str, ...]]] = {
    PODS: (
        *("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName"),
        *("spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName"),
    ),
    EVENTS: (
        *(f"involvedObject.{each}" for each in ("kind", "namespace", "name", "uid", "apiVersion")),
        *("involvedObject.resourceVersion", "involvedObject.fieldPath"),
        *("reason", "reportingComponent", "source", "type"),
    ),
    SECRETS: ("type",),
    JOBS: ("status.successful",),
}


def key_problem(key: str) -> str:
    """The reason for which this is no label's or annotation's key; empty: it is one."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > 253 or not _PREFIX.fullmatch(prefix)):
        return "prefix part must be a DNS-1123 subdomain"
    return "" if _NAME.fullmatch(name) else _KEYS


def value_problem(value: str) -> str:
    """The reason for which this is no label's value; empty: it is one."""
    if len(value) > 63:
        return "must be no more than 63 bytes"
    return "" if not value or _NAME.fullmatch(value) else _LABELS


def labels(text: str) -> Match:
    """Raises `KubeRefusal` where it cannot be parsed."""
    terms: list[Match] = []
    at = 0
    while at < len(text):
        found = _TERM.match(text, at)
        if (
            found is None
            or found.end() == at
            or text[found.end() : found.end() + 1] not in ("", ",")
        ):
            raise bad_request(
                f"unable to parse requirement: found '{text[at:]}', expected: identifier"
            )
        terms.append(_term(found))
        at = found.end() + 1
    return lambda shown: all(term(shown) for term in terms)


def _term(found: re.Match[str]) -> Match:
    key = found["no"] or found["key"]
    if why := key_problem(key):
        raise bad_request(f'unable to parse requirement: <nil>: Invalid value: "{key}": {why}')
    values = {found["value"]} if found["op"] else set()
    if found["set"]:
        values = {each.strip() for each in found["values"].split(",")}
    for value in values:
        if why := value_problem(value):
            text = f"unable to parse requirement: values[0][{key}]: Invalid value:"
            raise bad_request(f'{text} "{value}": {why}')
    if found["absent"]:
        return lambda shown: key not in _labels(shown)
    if found["op"] in ("=", "==") or found["set"] == "in":
        return lambda shown: _labels(shown).get(key) in values
    if values:
        return lambda shown: _labels(shown).get(key) not in values
    return lambda shown: key in _labels(shown)


def _labels(shown: Json) -> dict[str, str]:
    return shown["metadata"].get("labels") or {}


def fields(text: str, kind: Kind) -> Match:
    """Raises `KubeRefusal` for a field by which this kind cannot be selected."""
    terms: list[Match] = []
    for part in filter(None, text.split(",")):
        found = re.fullmatch(r"([^=!]+)(==|=|!=)(.*)", part)
        if found is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        name, operator, value = found.groups()
        if name not in ("metadata.name", "metadata.namespace", *_FIELDS.get(kind, ())):
            raise bad_request(f"field label not supported: {name}")
        terms.append(_field(name, value, equal=operator != "!="))
    return lambda shown: all(term(shown) for term in terms)


def _field(name: str, value: str, *, equal: bool) -> Match:
    path = name.split(".")

    def match(shown: Json) -> bool:
        found: Any = shown
        for key in path:
            found = (found or {}).get(key)
        return (str(found if found is not None else "") == value) is equal

    return match


def of_policy(selector: Json) -> Match:
    """The selector of a network policy or a Job: `matchLabels` and `matchExpressions`."""
    wanted = selector.get("matchLabels") or {}
    tests: Mapping[str, Callable[[Mapping[str, str], str, Sequence[str]], bool]] = {
        "In": lambda labels, key, values: labels.get(key) in values,
        "NotIn": lambda labels, key, values: labels.get(key) not in values,
        "Exists": lambda labels, key, _: key in labels,
        "DoesNotExist": lambda labels, key, _: key not in labels,
    }

    def match(shown: Json) -> bool:
        found = _labels(shown)
        return all(found.get(key) == value for key, value in wanted.items()) and all(
            tests[each["operator"]](found, each["key"], each.get("values") or ())
            for each in selector.get("matchExpressions") or ()
        )

    return match
