"""Events of a build in plain words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from vmrunner.lib import units
from vmrunner.model import BuildEvent, BuildRecord, EventKind
from vmrunner.services import build_history

_Data = Mapping[str, Any]
_PHASES: Final = {
    "queued": "It is in the queue",
    "provisioning": "A VM is asked for",
    "booting": "The VM boots",
    "connecting": "The VM is being connected to",
    "preparing": "The VM prepares the container and the source",
    "running": "The steps run",
    "collecting": "Artifacts are brought back",
    "held": "The steps are over, and the VM is kept",
    "finished": "It has ended",
}


def of_event(build: BuildRecord, event: BuildEvent) -> str:
    """One sentence about an event; of a kind that another version wrote, its name and fields."""
    words = _WORDS.get(event.kind)
    if words is not None:
        return words(build, event.data)
    fields = " ".join(f"{key}={value}" for key, value in event.data.items())
    return f"{event.kind} {fields}".strip()


def _with(text: str, data: _Data, *names: str) -> str:
    """The text, and what is said more."""
    rest = "; ".join(str(data[name]) for name in names if data.get(name))
    return f"{text}: {rest}" if rest else text


def _by(text: str, data: _Data) -> str:
    return f"{text} by {data['by']}" if data.get("by") else text


def _phase(_: BuildRecord, data: _Data) -> str:
    text = _PHASES.get(str(data.get("state")), str(data.get("state")))
    if data.get("pool"):
        text = f"A VM of the pool {data['pool']} is taken"
    elif data.get("state") in ("finished", "held") and data.get("result"):
        text = f"{text}: {data['result']}"
    return _with(text, data, "message")


def _step(build: BuildRecord, data: _Data) -> str:
    index = data.get("step")
    if not isinstance(index, int):
        return "A step"
    return f"Step {index + 1} “{build_history.short_title(build, index)}”"


def _step_ended(build: BuildRecord, data: _Data) -> str:
    code, seconds = data.get("exit_code"), data.get("seconds")
    text = f"{_step(build, data)} ended with exit code {code}"
    return f"{text} after {units.span(seconds)}" if isinstance(seconds, int | float) else text


def _amount(value: object) -> str:
    return units.amount(int(value)) if isinstance(value, int | float) else "?"


def _artifacts(_: BuildRecord, data: _Data) -> str:
    return f"{data.get('count')} artifacts came back, {_amount(data.get('bytes'))}"


def _cache(_: BuildRecord, data: _Data) -> str:
    outcome = str(data.get("outcome", "")).replace("_", " ")
    size = f", {_amount(data['bytes'])}" if "bytes" in data else ""
    return _with(f"Cache {data.get('path')}: {outcome}{size}", data, "message")


_WORDS: Final[Mapping[str, Callable[[BuildRecord, _Data], str]]] = {
    EventKind.PHASE: _phase,
    EventKind.TRACE: lambda _, data: f"It belongs to the trace {data.get('traceparent')}",
    EventKind.CANCEL: lambda _, data: _with(_by("Its end was asked for", data), data, "reason"),
    EventKind.EXTEND: lambda _, data: _by("Its VM is kept for longer: asked for", data),
    EventKind.RETRY: lambda _, data: _with("It starts once more", data, "reason", "message"),
    EventKind.REFUSED: lambda _, data: _with("The provider refused a VM", data, "message"),
    EventKind.BUDGET: lambda _, data: _with("A budget is overdrawn", data, "budget", "message"),
    EventKind.DOOM: lambda _, data: f"The VM is deleted: {data.get('death')}",
    EventKind.TAKE_OVER: lambda _, data: f"Another engine drives it: {data.get('owner')}",
    EventKind.TROUBLE: lambda _, data: _with("Something went wrong", data, "doing", "error"),
    EventKind.CONNECTION_LOST: lambda _, data: _with("The VM does not answer", data, "message"),
    EventKind.RECONNECTED: lambda _, __: "The VM answers again",
    EventKind.STALE_EPOCH: lambda _, __: "The VM obeys another engine",
    EventKind.SECRETS_TOO_SHORT: lambda _, data: (
        f"{data.get('count')} secrets are too short to be masked in the log"
    ),
    EventKind.BOOTSTRAPPED: lambda _, __: "The VM has installed what it needs",
    EventKind.SOURCE: lambda _, data: (
        f"{_amount(data.get('sent'))} of {_amount(data.get('total'))} of the source are in the VM"
    ),
    EventKind.PULLING: lambda _, __: "The container's image is being pulled",
    EventKind.CONTAINER: lambda _, __: "The container is there",
    EventKind.PINNED: lambda _, data: f"All further attempts run {data.get('container')}",
    EventKind.STEP_STARTED: lambda build, data: f"{_step(build, data)} began",
    EventKind.STEP_ENDED: _step_ended,
    EventKind.LOG_FULL: lambda _, __: "The log is as large as it may be: what follows is not kept",
    EventKind.COLLECTING: lambda _, data: f"{_amount(data.get('bytes'))} of artifacts have come",
    EventKind.ARTIFACTS: _artifacts,
    EventKind.ARTIFACT_MISSING: lambda _, data: f"No artifact matches {data.get('glob')}",
    EventKind.ARTIFACT_OMITTED: lambda _, data: _with("An artifact was left out", data, "message"),
    EventKind.CACHE: _cache,
}
