"""ResourceQuotas (plugin/pkg/admission/resourcequota/controller.go, pkg/quota/v1/evaluator/core of
1.34.2): what a new object would use is held against each quota of its namespace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from vmrunner_localclouds.kube.api_error import Json, forbidden
from vmrunner_localclouds.kube.controllers import Controller
from vmrunner_localclouds.kube.kinds import PODS, RESOURCE_QUOTAS, Kind
from vmrunner_localclouds.kube.quantities import quantity
from vmrunner_localclouds.kube.store import Change

if TYPE_CHECKING:
    pass

Usage = dict[str, Fraction]

_PLAIN: Final = frozenset(
    {
        *("pods", "secrets", "configmaps", "services", "persistentvolumeclaims"),
        *("resourcequotas", "replicationcontrollers"),
    }
)
_COMPUTE: Final = ("cpu", "memory", "ephemeral-storage")


class QuotaController(Controller):
    """Keeps `status.used`, and refuses what would be too much."""

    def admit(self, kind: Kind, shown: Json) -> None:
        """Raises `KubeRefusal`: 403, with the words of the real one."""
        metadata = shown["metadata"]
        namespace = metadata.get("namespace", "")
        for quota in self._cloud.store.all(RESOURCE_QUOTAS, namespace) if namespace else ():
            hard = {
                name: quantity(value) for name, value in (quota["spec"].get("hard") or {}).items()
            }
            wanted = {key: value for key, value in usage(kind, shown).items() if key in hard}
            name = quota["metadata"]["name"]
            if kind is PODS and (unsaid := sorted(_computed(hard) - set(wanted))):
                text = f"failed quota: {name}: must specify {','.join(unsaid)} for: "
                text += ",".join(each["name"] for each in shown["spec"]["containers"])
                raise forbidden(kind.resource, metadata["name"], text)
            used = self.used(namespace, hard)
            over = sorted(
                key for key, more in wanted.items() if more and used[key] + more > hard[key]
            )
            if over:
                sums_shown = (
                    f"requested: {_shown(over, wanted)}, used: {_shown(over, used)}, "
                    f"limited: {_shown(over, hard)}"
                )
                text = f"exceeded quota: {name}, {sums_shown}"
                raise forbidden(kind.resource, metadata["name"], text)

    def used(self, namespace: str, names: Iterable[str]) -> Usage:
        """The sums of these resources in a namespace."""
        total: Usage = dict.fromkeys(names, Fraction(0))
        for kind, shown in self._cloud.store.everything():
            if shown["metadata"].get("namespace") == namespace and not _ended(kind, shown):
                for key, value in usage(kind, shown).items():
                    if key in total:
                        total[key] += value
        return total

    def _changed(self, change: Change) -> None:
        namespace = change.object["metadata"].get("namespace", "")
        if not namespace or (change.kind is RESOURCE_QUOTAS and change.type == "DELETED"):
            return
        if any(True for _ in self._cloud.store.all(RESOURCE_QUOTAS, namespace)):
            self.soon(lambda: self._count(namespace))

    def _count(self, namespace: str) -> None:
        for quota in self._cloud.store.all(RESOURCE_QUOTAS, namespace):
            hard = quota["spec"].get("hard") or {}
            used = self.used(namespace, hard)
            status = {"hard": hard, "used": {name: _written(value) for name, value in used.items()}}
            if quota.get("status") != status:
                self._cloud.store.replace(RESOURCE_QUOTAS, quota, {**quota, "status": status})


def usage(kind: Kind, shown: Json) -> Usage:
    """The share of one object, by the names that a quota may limit."""
    found: Usage = {f"count/{kind.resource}": Fraction(1)}
    if not kind.group and kind.plural in _PLAIN:
        found[kind.plural] = Fraction(1)
    if kind is PODS:
        for part in ("requests", "limits"):
            for name in _COMPUTE:
                if (value := _pod(shown["spec"], part, name)) is not None:
                    found[f"{part}.{name}"] = value
                    if part == "requests":
                        found[name] = value
    return found


def _pod(spec: Mapping[str, Any], part: str, name: str) -> Fraction | None:
    """The sum over containers, or the largest of the init containers; None: one says nothing."""

    def amounts_of(field: str) -> list[Fraction | None]:
        return [
            quantity(amount)
            if (amount := (c.get("resources", {}).get(part) or {}).get(name))
            else None
            for c in spec.get(field) or ()
        ]

    values, first = amounts_of("containers"), amounts_of("initContainers")
    if None in (*values, *first):  # `Constraints` of that file holds both to it
        return None
    total = sum((value for value in values if value is not None), Fraction(0))
    return max([total, *(value for value in first if value is not None)])


def _computed(hard: Usage) -> set[str]:
    names = {*_COMPUTE, *(f"{part}.{name}" for part in ("requests", "limits") for name in _COMPUTE)}
    return names & set(hard)


def _ended(kind: Kind, shown: Json) -> bool:
    """True for a pod that has ended: it uses nothing (pkg/quota/v1/evaluator/core/pods.go)."""
    return kind is PODS and shown["status"].get("phase") in ("Succeeded", "Failed")


def _shown(names: list[str], values: Usage) -> str:
    return ",".join(f"{name}={_written(values[name])}" for name in names)


def _written(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return f"{value.numerator * 1000 // value.denominator}m"
