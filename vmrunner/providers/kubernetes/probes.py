"""Probes, for what only a try shows: whether the cluster's controllers act, a runtime class can be
entered, a network policy holds. Each is tried once a day, by what ends by itself.

What was shown is kept in this host's cache, by namespace and by all that it depends on.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from vmrunner.lib import ids, unit_recipe
from vmrunner.lib.websocket_channel import EXEC, WebSocketChannel
from vmrunner.model import Address, Role
from vmrunner.providers.common.call_failed import CallFailed, tolerated
from vmrunner.providers.kubernetes import bodies, error_codes
from vmrunner.providers.kubernetes.client import JOBS, PODS, SECRETS, KubeClient
from vmrunner.providers.kubernetes.identity import NamespaceIdentity
from vmrunner.providers.kubernetes.labels import NETWORK, PREFIX
from vmrunner.providers.kubernetes.options import KubernetesOptions

#: Seconds for which a verdict holds; one that is bad, or that could not be had, for less.
GOOD_FOR: Final = 86400.0
BAD_FOR: Final = 600.0
#: Seconds that a probe's objects live at most, and that each step is waited for.
LIFE: Final = 300
STEP_TIMEOUT: Final = 90.0
POLL: Final = 1.0
#: Seconds that the process's end waits for a probe to drop its objects; they end by themselves too.
LEAVING: Final = 5.0
_PROBE: Final = "probe"  # the container's name
#: Words of a verdict: no pod reaches anything, so none is shown to be walled in.
NO_CONTROL: Final = "no pod reaches anything, so one of network none shows no wall"
#: Prints what it reaches of: the API server, a cluster's usual DNS service, the metadata service,
#: the internet. Each is given 3 s.
REACH: Final = """
import os, socket, threading
api = os.environ.get("KUBERNETES_SERVICE_HOST", "10.96.0.1")
port = int(os.environ.get("KUBERNETES_SERVICE_PORT", "443"))
dns = api.rpartition(".")[0] + ".10" if "." in api else "10.96.0.10"
goals = {"the API server": (api, port), "the DNS service": (dns, 53),
         "169.254.169.254": ("169.254.169.254", 80), "the internet": ("1.1.1.1", 443)}
reached = []
def reach(name, to):
    try:
        socket.create_connection(to, 3).close()
        reached.append(name)
    except OSError:
        pass
threads = [threading.Thread(target=reach, args=goal) for goal in goals.items()]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("reached: " + ", ".join(sorted(reached)))
"""


class _Left(Exception):
    """The process ends amid a probe."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of a probe. `shown` None: nothing is, for the reason in `words`. `at`: epoch seconds
    of the cluster."""

    shown: bool | None
    words: str = ""
    at: float = 0.0

    def holds(self, now: float) -> bool:
        """True if it needs no new probe."""
        return 0 <= now - self.at < (GOOD_FOR if self.shown else BAD_FOR)


UNKNOWN: Final = Verdict(shown=None, words="not probed yet")


class KubeProbes:
    """The probes of one provider. Thread-safe. `now`: the cluster's time; `sleep`, `elapsed` are
    for tests with a clock of their own."""

    def __init__(
        self,
        options: KubernetesOptions,
        client: KubeClient,
        identity: NamespaceIdentity,
        now: Callable[[], float],
        *,
        sleep: Callable[[float], None] = time.sleep,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._client = client
        self._identity = identity
        self._now = now
        self._sleep = sleep
        self._elapsed = elapsed
        self._locks = {name: threading.Lock() for name in ("controllers", "unit")}
        self._running = threading.Lock()
        self._leaving = False
        self._verdicts: dict[str, Verdict] = {}

    def controllers(self) -> Verdict:
        """Verdict whether a Job ends at its deadline and takes what it owns along; tried where that
        is not known. Raises `CallFailed`."""
        return self._tried("controllers", self._try_controllers)["controllers"]

    def unit(self) -> Mapping[str, Verdict]:
        """Verdicts of a pod of the unit image: "exec", whether it is reached; "recipe", its image's
        hash as words; "network", whether a pod of `network: none` gets nowhere while another one
        gets somewhere. Raises `CallFailed`."""
        return self._tried("unit", self._try_unit)

    def network(self) -> Verdict:
        """Verdict about network none, as far as there is one; a probe begins where there is none.
        Never waits."""
        if self._options.network_policy == "never":
            return Verdict(shown=False, words='network_policy = "never"')
        if self._options.unit_image is None:
            return Verdict(shown=False, words="no unit_image is set, which the probe runs")
        verdict = self._latest("network")
        if verdict.holds(self._now()):
            return verdict
        if self._running.acquire(blocking=False):
            atexit.register(self.leave)
            threading.Thread(target=self._beside, name="probe", daemon=True).start()
        return verdict if verdict.shown is not None else UNKNOWN

    def leave(self) -> None:
        """End a probe that is under way: at the process's end, for another command may need it no
        more. It shows nothing then."""
        self._leaving = True
        if self._running.acquire(timeout=LEAVING):
            self._running.release()

    # --- within ---

    def _beside(self) -> None:
        try:
            self.unit()
        except _Left:
            pass
        except CallFailed as failed:
            self._keep({"network": Verdict(shown=None, words=str(failed), at=self._now())})
        finally:
            atexit.unregister(self.leave)
            self._running.release()

    def _tried(
        self, name: str, attempt: Callable[[], Mapping[str, Verdict]]
    ) -> Mapping[str, Verdict]:
        with self._locks[name]:
            names = ("controllers",) if name == "controllers" else ("exec", "recipe", "network")
            verdicts = {part: self._latest(part) for part in names}
            if not all(verdict.holds(self._now()) for verdict in verdicts.values()):
                verdicts |= attempt()
                self._keep(verdicts)
            return verdicts

    def _verdict(self, shown: bool | None, words: str) -> Verdict:
        return Verdict(shown=shown, words=words, at=self._now())

    # --- the probes ---

    def _try_controllers(self) -> Mapping[str, Verdict]:
        name = f"probe-{ids.instance_id().removeprefix('vm-')}"
        body = bodies.timer(self._meta(name, seconds=1), 1)
        uid = str(self._client.create(JOBS, body)["metadata"]["uid"])
        try:
            meta = {**self._meta(name, seconds=1), "ownerReferences": [_owner(name, uid)]}
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque"}
            self._client.create(SECRETS, secret)
            ended = self._until(lambda: self._is_ended(name))
            collected = ended and self._until(lambda: not self._is_there(SECRETS, name))
        finally:
            self._drop(JOBS, name, uid)
        if collected:
            return {"controllers": self._verdict(True, "a Job's end took what it owned along")}
        what = "the garbage collector left what it owned" if ended else "no controller ended it"
        words = f"a Job of 1 s: {what} within {STEP_TIMEOUT:.0f} s"
        return {"controllers": self._verdict(False, words)}

    def _try_unit(self) -> Mapping[str, Verdict]:
        name = f"probe-{ids.instance_id().removeprefix('vm-')}"
        job = bodies.timer(self._meta(name, seconds=LIFE), LIFE)
        uid = str(self._client.create(JOBS, job)["metadata"]["uid"])
        try:
            if trouble := self._start(name, _owner(name, uid), "none"):
                return self._nothing(trouble)
            try:
                found = self._entered(name)
            except OSError as error:
                return self._nothing(f"exec in a probe pod: {error}", exec=False)
            if found["network"].shown:
                found["network"] = self._controlled(name, _owner(name, uid))
            return found
        finally:
            self._drop(JOBS, name, uid)

    def _start(self, pod: str, owner: Mapping[str, str], network: str) -> str:
        """Start a pod; the reason for which it does not run, or nothing."""
        self._client.create(PODS, self._pod(pod, owner, network))
        if self._until(lambda: self._phase(pod) not in ("Pending", "")):
            return ""
        return f"a probe pod did not start: {self._why(pod)}"

    def _controlled(self, job: str, owner: Mapping[str, str]) -> Verdict:
        """Verdict on a pod of network none that reached nothing. It tells of a wall where another
        pod reaches something: one of network open, or, in a cluster that has no way to the
        internet, one that no policy of ours selects."""
        for network, words in (("open", "one of network open"), ("", "one without the label")):
            pod = f"{job}-{network or 'free'}"
            if trouble := self._start(pod, owner, network):
                return self._verdict(None, f"{trouble}, to compare with one of network none")
            try:
                reached = self._reached(pod)
            except OSError as error:
                return self._verdict(None, f"exec in a probe pod: {error}")
            if reached:
                text = f"a pod of network none reaches nothing, {words} reaches {reached}"
                return self._verdict(True, text)
        return self._verdict(False, NO_CONTROL)

    def _nothing(self, words: str, **shown: bool) -> dict[str, Verdict]:
        names = ("exec", "recipe", "network")
        return {name: self._verdict(shown.get(name), words) for name in names}

    def _entered(self, pod: str) -> dict[str, Verdict]:
        """Raises OSError."""
        echo = self._run(pod, "echo", "vmrunner")
        if echo.strip() != "vmrunner":
            return self._nothing(f"exec in a probe pod answered {echo[:80]!r}", exec=False)
        found = {"exec": self._verdict(True, "a pod of it is reached by exec")}
        recipe = self._run(pod, "cat", f"/{unit_recipe.HASH}").strip()
        found["recipe"] = self._verdict(True, recipe)
        try:
            reached = self._reached(pod)
            words = f"a pod of network none reaches {reached or 'nothing'}"
            found["network"] = self._verdict(not reached, words)
        except OSError as error:
            found["network"] = self._verdict(None, str(error))
        return found

    def _reached(self, pod: str) -> str:
        """Names of all that a pod reaches; empty: nothing. Raises OSError."""
        answer = self._run(pod, "python3", "-c", REACH).strip()
        if not answer.startswith("reached:"):
            raise OSError(f"the probe answered {answer[:80]!r}")
        return answer.removeprefix("reached:").strip()

    def _run(self, pod: str, *command: str) -> str:
        """Output of a command in the probe's container. Raises OSError."""
        from vmrunner.providers.kubernetes.streams import exec_path

        path = exec_path(self._client, pod, _PROBE, *command)
        channel = WebSocketChannel(lambda _: self._client.stream(path, EXEC))
        output = b""
        end = self._elapsed() + STEP_TIMEOUT
        with channel.open(Address(pod)) as stream:
            stream.settimeout(STEP_TIMEOUT)
            while piece := stream.recv(1 << 16):
                output = (output + piece)[:4096]
                if self._elapsed() >= end:
                    raise TimeoutError(f"it still writes after {STEP_TIMEOUT:.0f} s")
        return output.decode(errors="replace")

    def _pod(self, name: str, owner: Mapping[str, str], network: str) -> dict[str, Any]:
        meta = self._meta(name, seconds=LIFE)
        if network:
            meta["labels"][NETWORK] = network
        container = {
            "name": _PROBE,
            "image": self._options.unit_image,
            "command": ["sleep", str(LIFE)],
            "securityContext": bodies.confined(),
            "resources": bodies.SMALL,
        }
        spec = {
            **bodies.pod_base(self._options),
            "activeDeadlineSeconds": LIFE,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        }
        meta["ownerReferences"] = [owner]
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}

    def _meta(self, name: str, *, seconds: int) -> dict[str, Any]:
        """Marked as an image's builder is: a sweep ends what a probe left."""
        marks = {
            "installation": self._options.installation,
            "role": Role.IMAGE.value,
            "expires-at": str(int(self._now()) + seconds),
        }
        return {"name": name, "labels": {PREFIX + key: value for key, value in marks.items()}}

    def _until(self, true: Callable[[], bool]) -> bool:
        end = self._elapsed() + STEP_TIMEOUT
        while not true():
            if self._leaving:
                raise _Left
            if self._elapsed() >= end:
                return False
            self._sleep(POLL)
        return True

    def _is_there(self, kind: Any, name: str) -> bool:
        with tolerated(error_codes.MISSING):
            self._client.get(kind, name)
            return True
        return False

    def _is_ended(self, name: str) -> bool:
        """True once its deadline ended a Job, be it that a collector is still to take it away."""
        with tolerated(error_codes.MISSING):
            return "deletionTimestamp" in self._client.get(JOBS, name)["metadata"]
        return True

    def _phase(self, name: str) -> str:
        return str((self._client.get(PODS, name).get("status") or {}).get("phase") or "")

    def _why(self, name: str) -> str:
        from vmrunner.providers.kubernetes import events
        from vmrunner.providers.kubernetes.states import pod_view

        pod = self._client.get(PODS, name)
        found = pod_view(pod, self._now()).detail
        try:
            return found or events.refusal(self._client, pod) or "it is pending"
        except CallFailed:
            return "it is pending"

    def _drop(self, kind: Any, name: str, uid: str) -> None:
        """Let it go now; it ends by itself anyway."""
        with tolerated(error_codes.MISSING):
            self._client.delete(kind, name, uid)

    # --- what is known ---

    def _latest(self, name: str) -> Verdict:
        if name not in self._verdicts:
            self._verdicts |= self._read()
        return self._verdicts.get(name, UNKNOWN)

    def _keep(self, found: Mapping[str, Verdict]) -> None:
        self._verdicts |= found
        path = self._path()
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
        draft.write_text(
            json.dumps({name: asdict(verdict) for name, verdict in self._verdicts.items()})
        )
        draft.replace(path)

    def _read(self) -> dict[str, Verdict]:
        path = self._path()
        try:
            table = json.loads(path.read_text()) if path is not None else {}
            return {str(name): Verdict(**facts) for name, facts in table.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}  # another version's, or none: it is probed anew

    def _path(self) -> Any:
        scope, cache = self._identity.quietly(), self._options.cache_dir
        if scope is None or cache is None:
            return None
        options = self._options
        facts = (str(scope), options.runs, options.runtime_class, options.unit_image, options.dns)
        name = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
        return cache / "kubernetes" / f"probes-{name}.json"


def _owner(name: str, uid: str) -> dict[str, str]:
    return {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid}
