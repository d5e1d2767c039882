"""LimitRanges (kubernetes.io, "Limit Ranges"; plugin/pkg/admission/limitranger/admission.go of
1.34): what a container leaves out is filled in, and what is out of range is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from vmrunner_localclouds.kube.api_error import Cause, Json, banned, forbidden, wrong
from vmrunner_localclouds.kube.kinds import LIMIT_RANGES, PODS, VOLUME_CLAIMS, Kind
from vmrunner_localclouds.kube.quantities import quantity
from vmrunner_localclouds.kube.strategies import Strategy

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

Amounts = Mapping[str, str]

_CONTAINER, _POD, _CLAIM = "Container", "Pod", "PersistentVolumeClaim"
_NOTE: Final = "kubernetes.io/limit-ranger"
#: Pairs of a range's fields, the first of which may not be greater; and their names in a refusal.
_ORDER: Final = (
    ("min", "max", "min value", "max value"),
    ("defaultRequest", "max", "default request value", "max value"),
    ("defaultRequest", "default", "default request value", "default limit value"),
    ("default", "max", "default value", "max value"),
)


class LimitRangeStrategy(Strategy):
    def fill(self, _: LocalKube, shown: Json) -> None:
        for item in shown["spec"].get("limits") or ():
            if item["type"] == _CONTAINER:
                item["default"] = {**item.get("max", {}), **item.get("default", {})}
                item["defaultRequest"] = {
                    **item.get("min", {}),
                    **item["default"],
                    **item.get("defaultRequest", {}),
                }

    def problems(self, shown: Json) -> list[Cause]:
        found: list[Cause] = []
        for number, item in enumerate(shown["spec"].get("limits") or ()):
            found += _problems(item, f"spec.limits[{number}]")
        return found


class LimitRanger:
    """Holds what is made to the ranges of its namespace."""

    def __init__(self, cloud: LocalKube) -> None:
        self._cloud = cloud

    def fill(self, pod: Json) -> None:
        """Fill in what the containers of a new pod leave out."""
        notes: list[str] = []
        for item in self._items(pod):
            if item["type"] != _CONTAINER:
                continue
            for field, what in (("containers", "container"), ("initContainers", "init container")):
                for part in pod["spec"].get(field) or ():
                    notes += _filled(part, what, item)
        if notes:
            kept = pod["metadata"].get("annotations") or {}
            text = "LimitRanger plugin set: " + "; ".join(notes)
            pod["metadata"]["annotations"] = {**kept, _NOTE: text}

    def admit(self, kind: Kind, shown: Json) -> None:
        """Raises `KubeRefusal`: 403, with the words of the real one."""
        if kind not in (PODS, VOLUME_CLAIMS):
            return
        found = (words for item in self._items(shown) for words in _refusals(kind, item, shown))
        if errors := list(dict.fromkeys(found)):
            text = errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]"
            raise forbidden(kind.resource, shown["metadata"]["name"], text)

    # --- within ---

    def _items(self, shown: Json) -> Iterator[Json]:
        namespace = shown["metadata"].get("namespace", "")
        for found in self._cloud.store.all(LIMIT_RANGES, namespace) if namespace else ():
            yield from found["spec"].get("limits") or ()


def _filled(part: Json, what: str, item: Json) -> list[str]:
    """Fill in one container's resources; notes of what was set."""
    notes = []
    for field, name in (("requests", "request"), ("limits", "limit")):
        defaults = item["defaultRequest" if field == "requests" else "default"]
        own = part["resources"].get(field) or {}
        if new := sorted(set(defaults) - set(own)):
            part["resources"][field] = {**own, **{key: defaults[key] for key in new}}
            notes.append(f"{', '.join(new)} {name} for {what} {part['name']}")
    return notes


def _refusals(kind: Kind, item: Json, shown: Json) -> Iterator[str]:
    spec, what = shown["spec"], item["type"]
    if kind is VOLUME_CLAIMS:
        if what == _CLAIM:
            requests = (spec.get("resources") or {}).get("requests") or {}
            # What a claim asks for is all that it has.
            yield from _bounded(item, what, requests, requests, limited="request")
    elif what == _CONTAINER:
        for part in (*spec["containers"], *(spec.get("initContainers") or ())):
            own = part["resources"]
            yield from _bounded(item, what, own.get("requests") or {}, own.get("limits") or {})
    elif what == _POD:
        yield from _bounded(item, what, _summed(spec, "requests"), _summed(spec, "limits"))


def _bounded(
    item: Json, what: str, requests: Amounts, limits: Amounts, *, limited: str = "limit"
) -> Iterator[str]:
    """Bounds of a range that an amount breaks, a line each."""
    for key, least in sorted((item.get("min") or {}).items()):
        text = f"minimum {key} usage per {what} is {least}"
        if key not in requests:
            yield f"{text}.  No request is specified"
        elif quantity(requests[key]) < quantity(least):
            yield f"{text}, but request is {requests[key]}"
        elif key in limits and quantity(limits[key]) < quantity(least):
            yield f"{text}, but limit is {limits[key]}"
    for key, most in sorted((item.get("max") or {}).items()):
        text = f"maximum {key} usage per {what} is {most}"
        if key not in limits:
            yield f"{text}.  No {limited} is specified"
        elif quantity(limits[key]) > quantity(most):
            yield f"{text}, but {limited} is {limits[key]}"
        elif key in requests and quantity(requests[key]) > quantity(most):
            yield f"{text}, but request is {requests[key]}"
    yield from _ratios(item, what, requests, limits)


def _ratios(item: Json, what: str, requests: Amounts, limits: Amounts) -> Iterator[str]:
    for key, most in sorted((item.get("maxLimitRequestRatio") or {}).items()):
        text = f"{key} max limit to request ratio per {what} is {most}, but"
        request, limit = quantity(requests.get(key, 0)), quantity(limits.get(key, 0))
        if not request:
            yield f"{text} no request is specified or request is 0"
        elif not limit:
            yield f"{text} no limit is specified or limit is 0"
        elif limit / request > quantity(most):
            yield f"{text} provided ratio is {float(limit / request):.6f}"


def _summed(spec: Json, field: str) -> dict[str, str]:
    """Sums over a pod's containers; of each, its largest init container where that is more."""
    total: dict[str, Fraction] = {}
    for part in spec["containers"]:
        for key, value in (part["resources"].get(field) or {}).items():
            total[key] = total.get(key, Fraction(0)) + quantity(value)
    for part in spec.get("initContainers") or ():
        for key, value in (part["resources"].get(field) or {}).items():
            total[key] = max(total.get(key, Fraction(0)), quantity(value))
    return {key: _written(value, binary=key != "cpu") for key, value in total.items()}


def _written(value: Fraction, *, binary: bool) -> str:
    """An amount as Kubernetes writes it."""
    if value.denominator != 1:
        return f"{value * 1000}m"
    units = (("Gi", 30), ("Mi", 20), ("Ki", 10)) if binary else ()
    found = (f"{value / (1 << bits)}{unit}" for unit, bits in units if not value % (1 << bits))
    return next(found, str(value))


def _problems(item: Json, where: str) -> Iterable[Cause]:
    """All that is wrong with a range (`ValidateLimitRange`)."""
    if item["type"] == _POD:
        text = "may not be specified when `type` is 'Pod'"
        given = [key for key in ("default", "defaultRequest") if item.get(key)]
        yield from (banned(f"{where}.{key}", text) for key in given)
    for lower, upper, less, more in _ORDER:
        bounds: Mapping[str, Any] = item.get(upper) or {}
        for key, value in sorted((item.get(lower) or {}).items()):
            if key in bounds and quantity(value) > quantity(bounds[key]):
                text = f"{less} {value} is greater than {more} {bounds[key]}"
                yield wrong(f"{where}.{lower}[{key}]", value, text)
    for key, value in sorted((item.get("maxLimitRequestRatio") or {}).items()):
        if quantity(value) < 1:
            field = f"{where}.maxLimitRequestRatio[{key}]"
            yield wrong(field, value, f"ratio {value} is less than 1")
