"""`doctor` for Kubernetes: whether the namespace is reached, the right to delete, then what a
launch needs. Each finding with its fix; one that fails hinders no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from vmrunner.errors import CredentialsRefused, QuotaExceeded
from vmrunner.lib import resources, unit_recipe
from vmrunner.model import Finding, Shape, Spec
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.findings import (
    bad,
    each,
    of_clock,
    of_failure,
    of_holes,
    ok,
    warning,
)
from vmrunner.providers.kubernetes import bodies, error_codes, unit_version
from vmrunner.providers.kubernetes.client import CLAIMS, JOBS, JOBS_META, PODS, VMIS, ApiKind
from vmrunner.providers.kubernetes.labels import PREFIX
from vmrunner.providers.kubernetes.permissions import DELETE, OPTIONAL
from vmrunner.providers.kubernetes.probes import NO_CONTROL, Verdict

if TYPE_CHECKING:
    from vmrunner.providers.kubernetes.provider import KubernetesProvider

Check = Callable[["KubernetesProvider"], Iterator[Finding]]

_NAME: Final = "vmrunner-check"  # of what is shown to admission
_LOOK: Final = "see docs/kubernetes.md"
#: Tokens are not judged by this host's clock; past it certificates are.
_REFUSED: Final = 3600.0
_OWN: Final = "the node's own runtime"
_BASE: Final = unit_version.MAKE


def check(provider: KubernetesProvider) -> list[Finding]:
    """Run all checks. Whether the namespace is reached comes first: without it nothing else can be
    told."""
    try:
        scope = provider.identity.read()
    except CallFailed as failed:
        return [of_failure("namespace", failed.error, _LOOK)]
    found = [ok("namespace", f"{scope.place}, {scope.account}, at {provider.client.server}")]
    checks = {name: partial(part, provider) for name, part in _CHECKS}
    return [*found, *each(checks, _LOOK)]


def _delete(provider: KubernetesProvider) -> Iterator[Finding]:
    if provider.permissions.ask(DELETE):
        yield ok("delete", f"{DELETE} is allowed")
    else:
        yield bad(
            "delete", f"{DELETE} is denied", f"allow it: {_role()}; nothing is launched before"
        )


def _rights(provider: KubernetesProvider) -> Iterator[Finding]:
    missing = [right for right in provider.permissions.missing() if right != DELETE]
    if missing:
        names = ", ".join(map(str, missing))
        why = "; from Kubernetes 1.35 a stream needs create too" if _streams(missing) else ""
        yield bad("rights", f"denied: {names}{why}", f"allow them: {_role()}")
    else:
        yield ok("rights", "all that are needed, and to streams get and create")
    for right, words in OPTIONAL.items():
        if not provider.permissions.ask(right):
            what = f"denied: {right}: {words} is not told"
            yield warning("rights", what, f"allow it: {_role()}")


def _streams(missing: list[Any]) -> bool:
    return any("/" in right.resource and right.verb == "create" for right in missing)


def _alone(provider: KubernetesProvider) -> Iterator[Finding]:
    """Check that no other installation is in the namespace: each would take the other's for
    leftovers of nobody."""
    own = provider.options.installation
    selector = f"{PREFIX}installation,{PREFIX}installation!={own}"
    answer = provider.client.page(JOBS_META, labelSelector=selector, limit="1")
    for item in answer.get("items") or ():
        whose = item["metadata"]["labels"][f"{PREFIX}installation"]
        yield bad(
            "namespace",
            f"it holds {item['metadata']['name']} of another installation, {whose}",
            f"give this one its own: providers.{provider.name}.namespace",
        )
        return
    yield ok("namespace", "nothing of another installation is in it")


def _sweep(provider: KubernetesProvider) -> Iterator[Finding]:
    yield from of_holes(provider.sweep(), f"see that these credentials have the role: {_role()}")


def _kind(provider: KubernetesProvider) -> Iterator[Finding]:
    """Check that the cluster takes what would be asked for: its kinds, runtime class, policies."""
    provider.options.check_launch()
    options = provider.options
    meta = {"name": _NAME, "labels": {f"{PREFIX}installation": options.installation}}
    provider.client.create(JOBS, bodies.timer(meta, 1), dry=True)
    yield ok("jobs", "a deadline's Job passes the cluster's admission")
    # As a build's is: what asks for less may pass where no build does.
    size = min(options.machine_sizes, key=attrgetter("cpus", "memory"))
    if options.runs == "vmi":
        if options.volume is not None:
            yield from _taken(provider, CLAIMS, bodies.claim_of(meta, options))
        vm = bodies.machine(meta, options.image_name, size, options)
        yield from _taken(provider, VMIS, vm)
        yield ok("KubeVirt", "a VM passes the cluster's admission")
        yield from _launchers(provider)
        return
    if options.runtime_class is None:
        yield warning(
            "wall",
            'wall = "none": builds share the node\'s kernel',
            "set runtime_class to one with a wall, such as kata-qemu or gvisor",
        )
    image, shape = str(options.unit_image), Shape(container="build", runtime="", log_bytes=1 << 20)
    spec = bodies.unit(_NAME, image, shape, size, options)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
    yield from _taken(provider, PODS, pod)
    yield ok("runtime class", f"{options.runtime_class or _OWN} is taken")


def _taken(
    provider: KubernetesProvider, kind: ApiKind, body: Mapping[str, Any]
) -> Iterator[Finding]:
    """Ask whether it would be taken. Raises `CallFailed` where it would not; a quota is warned of:
    it is judged last, after all else, and others' builds may be what fills it."""
    try:
        provider.client.create(kind, body, dry=True)
    except CallFailed as failed:
        if not isinstance(failed.error, QuotaExceeded):
            raise
        yield warning("quota", f"no build fits: {failed.error.args[0]}", failed.error.hint)


def _launchers(provider: KubernetesProvider) -> Iterator[Finding]:
    """Warn of a level that no VM's pod may pass, which no dry run of the VM shows."""
    namespace = provider.client.call("GET", f"/api/v1/namespaces/{provider.options.namespace}")
    labels = namespace["metadata"].get("labels") or {}
    if labels.get("pod-security.kubernetes.io/enforce") == "restricted":
        yield warning(
            "Pod Security",
            "restricted is enforced: KubeVirt's launchers pass it only with a seccomp profile",
            "label the namespace for `baseline`, or set KubeVirt's seccompConfiguration",
        )


def _controllers(provider: KubernetesProvider) -> Iterator[Finding]:
    verdict = provider.probes.controllers()
    if verdict.shown:
        yield ok("controllers", verdict.words)
        return
    yield bad(
        "controllers",
        f"{verdict.words}: only the guest's timer and vmrunner's reaper end what is left",
        "start kube-controller-manager with its job, ttl-after-finished and garbage-collector",
    )


def _exec(provider: KubernetesProvider) -> Iterator[Finding]:
    options = provider.options
    if options.runs != "pod":
        return
    found = provider.probes.unit()
    named = options.runtime_class or _OWN
    if found["exec"].shown:
        yield ok("exec", f"{named}: {found['exec'].words}")
        yield from _recipe(found["recipe"])
    else:
        yield bad(
            "exec",
            f"{named}: {found['exec'].words}",
            "set runtime_class to one whose pods `kubectl exec` reaches, and a unit_image that its "
            "nodes can pull",
        )


def _recipe(verdict: Verdict) -> Iterator[Finding]:
    wanted = unit_recipe.current()
    if verdict.words == wanted:
        yield ok("unit image", f"recipe {wanted}")
    else:
        shown = verdict.words or "none of vmrunner's"
        yield bad("unit image", f"its recipe is {shown}, this vmrunner's {wanted}", _BASE)


def _network(provider: KubernetesProvider) -> Iterator[Finding]:
    options = provider.options
    if not options.probes_network:
        why = 'network_policy = "never"' if options.unit_image else "no unit_image to probe with"
        yield warning(
            "network none",
            f"{why}: network none is refused where the cluster would have to keep it",
            _BASE if options.unit_image is None else 'set network_policy = "probe"',
        )
        return
    verdict = provider.probes.unit()["network"]
    if verdict.shown:
        yield ok("network none", verdict.words)
        return
    policies = resources.path("deploy") / "kubernetes/network.yaml"
    fix = f"apply {policies}, and use a network plugin that keeps policies"
    if verdict.words == NO_CONTROL:
        fix = f"let pods of network open out to the internet, as {policies} does"
    yield warning("network none", f"{verdict.words}: network none is refused", fix)


def _offers(provider: KubernetesProvider) -> Iterator[Finding]:
    offer = provider.offers(Spec())[0]
    yield ok("launch", f"{offer.machine_type} in {offer.place}")


def _quota(provider: KubernetesProvider) -> Iterator[Finding]:
    """Check what a launch would meet, where the namespace has a quota that may be read."""
    try:
        answer = provider.client.call("GET", provider.client.path(QUOTAS))
    except CallFailed as failed:
        if isinstance(failed.error, CredentialsRefused) or error_codes.is_unknown_kind(failed):
            return
        raise
    for quota in answer.get("items") or ():
        status = quota.get("status") or {}
        hard, used = status.get("hard") or {}, status.get("used") or {}
        for name in sorted(hard):
            if hard[name] == used.get(name) and hard[name] != "0":
                yield warning(
                    "quota",
                    f"{quota['metadata']['name']}: {name} is used up: {hard[name]}",
                    "raise it, or run fewer at once",
                )


QUOTAS: Final = PODS._replace(plural="resourcequotas")


def _clock(provider: KubernetesProvider) -> Iterator[Finding]:
    yield of_clock(provider.clock.skew or 0.0, refused=_REFUSED, whose="the cluster")


def _role() -> str:
    return f"kubectl apply -f {resources.path('deploy') / 'kubernetes/role.yaml'}"


_CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("delete", _delete),
    ("rights", _rights),
    ("namespace", _alone),
    ("sweep", _sweep),
    ("cluster", _kind),
    ("controllers", _controllers),
    ("exec", _exec),
    ("network none", _network),
    ("launch", _offers),
    ("quota", _quota),
    ("clock", _clock),
)
