"""Pod Security (kubernetes.io, "Pod Security Standards"): what a level forbids of a pod, in the
words of kubernetes/pod-security-admission's policy/check_*.go. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

from vmrunner_localclouds.kube.api_error import Json

PRIVILEGED: Final = "privileged"
LEVELS: Final = (PRIVILEGED, "baseline", "restricted")
#: A reason, and who gives it: None, where a pod is well.
Found = tuple[str, str] | None


class Policy(NamedTuple):
    """A level, and the version of Kubernetes whose rules count: `latest` or `v1.34`."""

    level: str
    version: str

    def __str__(self) -> str:
        return f"{self.level}:{self.version}"


class Pod(NamedTuple):
    metadata: Json
    spec: Json
    minor: int  # of the version whose rules count

    @property
    def containers(self) -> Iterator[Json]:
        """All of them, in the order in which they are judged."""
        for field in ("initContainers", "containers", "ephemeralContainers"):
            yield from self.spec.get(field) or ()

    @property
    def relaxed(self) -> bool:
        """True in a user namespace, since Kubernetes 1.35."""
        return self.minor >= 35 and self.spec.get("hostUsers") is False

    @property
    def windows(self) -> bool:
        return self.minor >= 25 and (self.spec.get("os") or {}).get("name") == "windows"


class Check(NamedTuple):
    """One control. `since`: the minor version that brought it; `instead`: the name of baseline's
    that it takes the place of."""

    name: str
    judge: Callable[[Pod], Found]
    since: int = 0
    instead: str = ""


def violations(policy: Policy, server: int, metadata: Json, spec: Json) -> str:
    """All that a level forbids of a pod; empty: nothing. `server`: the API server's minor version,
    whose rules are the latest there are."""
    if policy.level == PRIVILEGED:
        return ""
    wanted = server if policy.version == "latest" else int(policy.version.removeprefix("v1."))
    pod = Pod(metadata, spec, min(wanted, server))
    hard = [check for check in _RESTRICTED if check.since <= pod.minor]
    hard = hard if policy.level == "restricted" else []
    replaced = {check.instead for check in hard}
    checks = [check for check in _BASELINE if check.since <= pod.minor]
    checks = [check for check in checks if check.name not in replaced]
    found = (check.judge(pod) for check in [*checks, *hard])
    return ", ".join(f"{reason} ({detail})" for reason, detail in filter(None, found))


# --- words ----------------------------------------------------------------------------------------


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _of(names: list[str], what: str = "container") -> str:
    return f"{what}{'' if len(names) == 1 else 's'} {_quoted(names)}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _context(part: Json) -> Json:
    return part.get("securityContext") or {}


def _type_of(profile: str, context: Json) -> str:
    """The type of a profile that is set; empty: it is not."""
    return str((context.get(profile) or {}).get("type") or "")


def _setters(pod: Pod, wrong: Callable[[Json], Iterable[str]]) -> tuple[str, list[str]]:
    """The parts that set what is wrong, as `pod and container "a"`, and all such values, sorted;
    empty when none does."""
    own = set(wrong(_context(pod.spec)))
    words = ["pod"] if own else []
    names, values = _containers(pod, lambda part: wrong(_context(part)))
    words += [_of(names)] if names else []
    return " and ".join(words), sorted(own | set(values))


def _containers(pod: Pod, wrong: Callable[[Json], Iterable[str]]) -> tuple[list[str], list[str]]:
    """Names of the containers in which something is wrong, and all of that, sorted."""
    found = {str(part["name"]): set(wrong(part)) for part in pod.containers}
    values = set[str]().union(*found.values())
    return [name for name, bad in found.items() if bad], sorted(values)


# --- baseline -------------------------------------------------------------------------------------

_APPARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"
_PROFILES: Final = ("", "RuntimeDefault", "Localhost")
_CAPABILITIES: Final = frozenset(
    {
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
        *("NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    }
)
_SELINUX: Final = ("", "container_t", "container_init_t", "container_kvm_t")
#: Sysctl → the minor version since which it is safe.
_SYSCTLS: Final = {
    "kernel.shm_rmid_forced": 0,
    "net.ipv4.ip_local_port_range": 0,
    "net.ipv4.tcp_syncookies": 0,
    "net.ipv4.ping_group_range": 0,
    "net.ipv4.ip_unprivileged_port_start": 0,
    "net.ipv4.ip_local_reserved_ports": 27,
    "net.ipv4.tcp_keepalive_time": 29,
    "net.ipv4.tcp_fin_timeout": 29,
    "net.ipv4.tcp_keepalive_intvl": 29,
    "net.ipv4.tcp_keepalive_probes": 29,
    "net.ipv4.tcp_rmem": 32,
    "net.ipv4.tcp_wmem": 32,
    "net.ipv4.tcp_slow_start_after_idle": 37,
    "net.ipv4.tcp_notsent_lowat": 37,
}


def _app_armor(pod: Pod) -> Found:
    def wrong(context: Json) -> list[str]:
        found = _type_of("appArmorProfile", context)
        return [] if found in _PROFILES else [found]

    who, values = _setters(pod, wrong)
    notes = pod.metadata.get("annotations") or {}
    bad = sorted(
        f'{key}="{value}"'
        for key, value in notes.items()
        if key.startswith(_APPARMOR)
        and value not in ("", "runtime/default")
        and not value.startswith("localhost/")
    )
    setters = [*([who] if who else []), *([_plural("annotation", len(bad))] if bad else [])]
    if not setters:
        return None
    values += bad
    reason = _plural("forbidden AppArmor profile", len(values))
    who = " and ".join(setters)
    return reason, f"{who} must not set AppArmor profile type to {_quoted(values)}"


def _added(allowed: Iterable[str], part: Json) -> list[str]:
    """Capabilities that are added beyond those."""
    found = (_context(part).get("capabilities") or {}).get("add") or ()
    return [name for name in found if name not in allowed]


def _capabilities(pod: Pod) -> Found:
    names, bad = _containers(pod, partial(_added, _CAPABILITIES))
    where = "in securityContext.capabilities.add"
    text = f"{_of(names)} must not include {_quoted(bad)} {where}"
    return ("non-default capabilities", text) if names else None


def _host_namespaces(pod: Pod) -> Found:
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(key)]
    return ("host namespaces", ", ".join(f"{key}=true" for key in found)) if found else None


def _host_paths(pod: Pod) -> Found:
    names = [each["name"] for each in pod.spec.get("volumes") or () if each.get("hostPath")]
    return ("hostPath volumes", _of(names, "volume")) if names else None


def _host_ports(pod: Pod) -> Found:
    def wrong(part: Json) -> list[str]:
        return [str(port["hostPort"]) for port in part.get("ports") or () if port.get("hostPort")]

    names, bad = _containers(pod, wrong)
    verb = "uses" if len(names) == 1 else "use"
    text = f"{_of(names)} {verb} {_plural('hostPort', len(bad))} {', '.join(bad)}"
    return ("hostPort", text) if names else None


def _hosts(pod: Pod) -> Found:
    def wrong(part: Json) -> list[str]:
        life = part.get("lifecycle") or {}
        probes = (part.get(f"{kind}Probe") for kind in ("liveness", "readiness", "startup"))
        every = [each or {} for each in (*probes, life.get("postStart"), life.get("preStop"))]
        handlers = [each.get(how) or {} for each in every for how in ("httpGet", "tcpSocket")]
        return [str(each["host"]) for each in handlers if each.get("host")]

    names, bad = _containers(pod, wrong)
    names.sort()
    what = "probe or lifecycle host"
    verb = "uses" if len(names) == 1 else "use"
    text = f"{_of(names)} {verb} {_plural(what, len(bad))} {_quoted(bad)}"
    return (what, text) if names else None


def _privileged(pod: Pod) -> Found:
    names, _ = _containers(pod, lambda part: ["true"] if _context(part).get("privileged") else [])
    text = f"{_of(names)} must not set securityContext.privileged=true"
    return ("privileged", text) if names else None


def _proc_mount(pod: Pod) -> Found:
    def wrong(part: Json) -> list[str]:
        found = _context(part).get("procMount") or "Default"
        return [] if found == "Default" else [found]

    names, bad = _containers(pod, wrong)
    text = f"{_of(names)} must not set securityContext.procMount to {_quoted(bad)}"
    return ("procMount", text) if names else None


def _se_linux(pod: Pod) -> Found:
    allowed = (*_SELINUX, *(("container_engine_t",) if pod.minor >= 31 else ()))

    def wrong(context: Json) -> list[str]:
        options = context.get("seLinuxOptions") or {}
        kind = options.get("type") or ""
        found = [f"type {kind}"] if kind not in allowed else []
        return found + [key for key in ("user", "role") if options.get(key)]

    who, values = _setters(pod, wrong)
    types = [value.removeprefix("type ") for value in values if value.startswith("type ")]
    bad = [_of(types, "type")] if types else []
    bad += [f"{key} may not be set" for key in ("user", "role") if key in values]
    text = f"{who} set forbidden securityContext.seLinuxOptions: {'; '.join(bad)}"
    return ("seLinuxOptions", text) if who else None


def _bad_seccomp(context: Json) -> list[str]:
    found = _type_of("seccompProfile", context)
    return [] if found in _PROFILES else [found]


def _seccomp(pod: Pod) -> Found:
    who, values = _setters(pod, _bad_seccomp)
    text = f"{who} must not set securityContext.seccompProfile.type to {_quoted(values)}"
    return ("seccompProfile", text) if who else None


def _sysctls(pod: Pod) -> Found:
    names = [each["name"] for each in _context(pod.spec).get("sysctls") or ()]
    bad = [name for name in names if _SYSCTLS.get(name, pod.minor + 1) > pod.minor]
    return ("forbidden sysctls", ", ".join(bad)) if bad else None


def _host_process(pod: Pod) -> Found:
    def wrong(context: Json) -> list[str]:
        return ["true"] if (context.get("windowsOptions") or {}).get("hostProcess") else []

    who, _ = _setters(pod, wrong)
    text = f"{who} must not set securityContext.windowsOptions.hostProcess=true"
    return ("hostProcess", text) if who else None


# --- restricted -----------------------------------------------------------------------------------

_CORE_VOLUMES: Final = frozenset(
    {
        *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image"),
        *("persistentVolumeClaim", "projected", "secret"),
    }
)


def _escalation(pod: Pod) -> Found:
    def wrong(part: Json) -> list[str]:
        return [] if _context(part).get("allowPrivilegeEscalation") is False else ["true"]

    names, _ = _containers(pod, wrong)
    text = f"{_of(names)} must set securityContext.allowPrivilegeEscalation=false"
    return ("allowPrivilegeEscalation != false", text) if names and not pod.windows else None


def _dropped(pod: Pod) -> Found:
    def kept(part: Json) -> list[str]:
        dropped = (_context(part).get("capabilities") or {}).get("drop") or ()
        return [] if "ALL" in dropped else ["ALL"]

    where = "securityContext.capabilities"
    keeping, _ = _containers(pod, kept)
    adding, bad = _containers(pod, partial(_added, ("NET_BIND_SERVICE",)))
    words = [f'{_of(keeping)} must set {where}.drop=["ALL"]'] if keeping else []
    words += [f"{_of(adding)} must not include {_quoted(bad)} in {where}.add"] if adding else []
    return ("unrestricted capabilities", "; ".join(words)) if words and not pod.windows else None


def _volumes(pod: Pod) -> Found:
    names: list[str] = []
    types: set[str] = set()
    for volume in pod.spec.get("volumes") or ():
        sources = [key for key, value in volume.items() if key != "name" and value is not None]
        if not _CORE_VOLUMES & set(sources):
            names.append(volume["name"])
            types.add(sources[0] if sources else "unknown")
    verb = "uses" if len(names) == 1 else "use"
    what = _plural("restricted volume type", len(types))
    text = f"{_of(names, 'volume')} {verb} {what} {_quoted(sorted(types))}"
    return ("restricted volume types", text) if names else None


def _non_root(pod: Pod) -> Found:
    reason, field = "runAsNonRoot != true", "securityContext.runAsNonRoot"
    who, _ = _setters(pod, lambda c: ["false"] if c.get("runAsNonRoot") is False else [])
    if pod.relaxed:
        return None
    if who:
        return reason, f"{who} must not set {field}=false"
    if _context(pod.spec).get("runAsNonRoot"):
        return None
    names, _ = _containers(pod, lambda p: [] if _context(p).get("runAsNonRoot") else ["unset"])
    return (reason, f"pod or {_of(names)} must set {field}=true") if names else None


def _user(pod: Pod) -> Found:
    who, _ = _setters(pod, lambda context: ["0"] if context.get("runAsUser") == 0 else [])
    return ("runAsUser=0", f"{who} must not set runAsUser=0") if who and not pod.relaxed else None


def _hard_seccomp(pod: Pod) -> Found:
    if pod.windows:
        return None
    if found := _seccomp(pod):
        return found
    if _type_of("seccompProfile", _context(pod.spec)):
        return None
    names, _ = _containers(
        pod, lambda part: [] if _type_of("seccompProfile", _context(part)) else ["unset"]
    )
    text = f"pod or {_of(names)} must set securityContext.seccompProfile.type to "
    return ("seccompProfile", f'{text}"RuntimeDefault" or "Localhost"') if names else None


#: By the names of Kubernetes' own, in whose order they are told.
_BASELINE: Final = (
    Check("appArmorProfile", _app_armor),
    Check("capabilities_baseline", _capabilities),
    Check("hostNamespaces", _host_namespaces),
    Check("hostPathVolumes", _host_paths),
    Check("hostPorts", _host_ports),
    Check("hostProbesAndHostLifecycle", _hosts, since=34),
    Check("privileged", _privileged),
    Check("procMount", lambda pod: None if pod.relaxed else _proc_mount(pod)),
    Check("seLinuxOptions", _se_linux),
    Check("seccompProfile_baseline", _seccomp, since=19),
    Check("sysctls", _sysctls),
    Check("windowsHostProcess", _host_process),
)
_RESTRICTED: Final = (
    Check("allowPrivilegeEscalation", _escalation, since=8),
    Check("capabilities_restricted", _dropped, since=22, instead="capabilities_baseline"),
    Check("procMount_restricted", _proc_mount, since=35, instead="procMount"),
    Check("restrictedVolumes", _volumes, instead="hostPathVolumes"),
    Check("runAsNonRoot", _non_root),
    Check("runAsUser", _user, since=23),
    Check("seccompProfile_restricted", _hard_seccomp, since=19, instead="seccompProfile_baseline"),
)


def template(shown: Json) -> tuple[Json, Json] | None:
    """Metadata and spec of the pods that a kind makes; None: it makes none."""
    spec: Any = shown.get("spec") or {}
    spec = (spec.get("jobTemplate") or {}).get("spec") or spec
    found = spec.get("template")
    if not isinstance(found, dict) or not isinstance(found.get("spec"), dict):
        return None
    return found.get("metadata") or {}, found["spec"]
