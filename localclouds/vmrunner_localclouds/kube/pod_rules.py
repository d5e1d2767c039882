"""Rules of pods and of templates of pods (pkg/apis/core/validation/validation.go,
pkg/registry/core/pod/strategy.go of 1.34.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from vmrunner_localclouds.kube.api_error import Cause, Json, banned, forbidden, missing, wrong
from vmrunner_localclouds.kube.kinds import PODS, RUNTIME_CLASSES
from vmrunner_localclouds.kube.quantities import quantity
from vmrunner_localclouds.kube.strategies import Strategy, defaults

if TYPE_CHECKING:
    from vmrunner_localclouds.kube.cloud import LocalKube

_MOST: Final = 2**31 - 1
_MUTABLE: Final = frozenset(
    {"activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"}
)
_FIXED: Final = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
    "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set "
    "to 1 if it was previously negative)"
)
_FIELDS: Final = "containers", "initContainers", "ephemeralContainers"
#: Taints that a pod stays through for five minutes (plugin/pkg/admission/defaulttolerationseconds).
_TOLERATIONS: Final = [
    {
        "key": f"node.kubernetes.io/{key}",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 300,
    }
    for key in ("not-ready", "unreachable")
]


class PodStrategy(Strategy):
    returns_deleted = True

    def fill(self, cloud: LocalKube, shown: Json) -> None:
        spec = shown["spec"]
        fill(spec)
        cloud.limits.fill(shown)
        defaults(
            spec,
            {
                "serviceAccountName": spec.get("serviceAccount") or "default",
                "enableServiceLinks": True,
                "preemptionPolicy": "PreemptLowerPriority",
                "priority": 0,
                "tolerations": list(_TOLERATIONS),
            },
        )
        spec["serviceAccount"] = spec["serviceAccountName"]
        shown["status"] = {"phase": "Pending", "qosClass": _quality(spec)}

    def problems(self, shown: Json) -> list[Cause]:
        return problems(shown["spec"], "spec")

    def update_problems(self, before: Json, shown: Json) -> list[Cause]:
        former, spec = before["spec"], shown["spec"]
        found: list[Cause] = []
        old, new = former.get("activeDeadlineSeconds"), spec.get("activeDeadlineSeconds")
        if old is not None and new is None:
            text = "must not update from a positive integer to nil value"
            found.append(wrong("spec.activeDeadlineSeconds", "null", text))
        elif old is not None and new > old:
            text = "must be less than or equal to previous value"
            found.append(wrong("spec.activeDeadlineSeconds", new, text))
        if _fixed(former) != _fixed(spec):
            found.append(banned("spec", _FIXED))
        return found

    def admit(self, cloud: LocalKube, shown: Json) -> None:
        name = shown["spec"].get("runtimeClassName")
        if name and cloud.store.get(RUNTIME_CLASSES, "", name) is None:
            text = f'pod rejected: RuntimeClass "{name}" not found'
            raise forbidden(PODS.resource, shown["metadata"]["name"], text)

    def grace(self, shown: Json, wanted: int | None) -> int | None:
        """Seconds of `CheckGracefulDelete`: none for what no node has, or what has ended."""
        period = wanted
        if period is None:
            period = shown["spec"].get("terminationGracePeriodSeconds") or 0
        ended = shown["status"].get("phase") in ("Failed", "Succeeded")
        if not shown["spec"].get("nodeName") or ended:
            period = 0
        return period if period >= 0 else 1


def fill(spec: Json) -> None:
    """Fill in defaults of a pod's spec (pkg/apis/core/v1/defaults.go)."""
    defaults(
        spec,
        {
            "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "terminationGracePeriodSeconds": 30,
        },
    )
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        image = str(container.get("image") or "")
        always = "@" not in image and (
            image.endswith(":latest") or ":" not in image.rpartition("/")[2]
        )
        defaults(
            container,
            {
                "imagePullPolicy": "Always" if always else "IfNotPresent",
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "resources": {},
            },
        )
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            if container.get(kind):
                defaults(
                    container[kind],
                    {
                        "failureThreshold": 3,
                        "periodSeconds": 10,
                        "successThreshold": 1,
                        "timeoutSeconds": 1,
                    },
                )
        limits = container["resources"].get("limits")
        if limits:
            requests = container["resources"].setdefault("requests", {})
            defaults(requests, limits)
    for volume in spec.get("volumes") or ():
        if volume.get("secret"):
            defaults(volume["secret"], {"defaultMode": 420})


def problems(spec: Json, path: str) -> list[Cause]:
    found: list[Cause] = []
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _MOST:
        text = f"must be between 1 and {_MOST}, inclusive"
        found.append(wrong(f"{path}.activeDeadlineSeconds", deadline, text))
    if not spec.get("containers"):
        found.append(missing(f"{path}.containers"))
    volumes = {volume["name"] for volume in spec.get("volumes") or ()}
    names: set[str] = set()
    for field in _FIELDS:
        for number, container in enumerate(spec.get(field) or ()):
            where = f"{path}.{field}[{number}]"
            if container["name"] in names:
                text = f'Duplicate value: "{container["name"]}"'
                found.append(Cause(f"{where}.name", "FieldValueDuplicate", text))
            names.add(container["name"])
            found += _container(container, volumes, where)
    if spec.get("dnsPolicy") == "None" and not (spec.get("dnsConfig") or {}).get("nameservers"):
        text = 'must provide at least one DNS nameserver when `dnsPolicy` is "None"'
        found.append(missing(f"{path}.dnsConfig.nameservers", text))
    return found


def _container(container: Json, volumes: set[str], where: str) -> list[Cause]:
    found: list[Cause] = []
    if not container.get("image"):
        found.append(missing(f"{where}.image"))
    resources = container.get("resources") or {}
    limits = resources.get("limits") or {}
    for name, amount in (resources.get("requests") or {}).items():
        if name in limits and quantity(amount) > quantity(limits[name]):
            text = f"must be less than or equal to {name} limit of {limits[name]}"
            found.append(wrong(f"{where}.resources.requests", amount, text))
    for number, mount in enumerate(container.get("volumeMounts") or ()):
        if mount["name"] not in volumes:
            text = f'Not found: "{mount["name"]}"'
            found.append(Cause(f"{where}.volumeMounts[{number}].name", "FieldValueNotFound", text))
    return found


def _fixed(spec: Json) -> Any:
    """The parts of a spec that an update may not change."""
    fixed = {key: value for key, value in spec.items() if key not in _MUTABLE}
    for field in ("containers", "initContainers"):
        parts = spec.get(field) or ()
        fixed[field] = [{k: v for k, v in part.items() if k != "image"} for part in parts]
    return fixed


def _quality(spec: Json) -> str:
    """The class of quality of service: Guaranteed where limits are requests everywhere."""
    resources = [part["resources"] for part in spec.get("containers") or ()]
    if not any(each.get("requests") or each.get("limits") for each in resources):
        return "BestEffort"
    for each in resources:
        limits = each.get("limits") or {}
        if not {"cpu", "memory"} <= set(limits) or each.get("requests") != limits:
            return "Burstable"
    return "Guaranteed"
