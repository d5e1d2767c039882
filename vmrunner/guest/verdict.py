"""Ends of a build in reason, exit code and message: of a container that could not be started, and
of one that exited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import pull as pulling
from .state import ContainerError

if TYPE_CHECKING:
    from .state import EventLog, Place


Verdict = tuple[str, int | None, str]


def of_error(place: Place, job: dict[str, Any], events: EventLog, error: ContainerError) -> Verdict:
    """The verdict on a container that could not be started."""
    name = job["container"]
    text = str(error)
    if isinstance(error, pulling.NotPulled) or pulling.missing(error):
        have = ", ".join(place.runtime.images()) or "none"
        absent = f"container image {name} is not in this VM image"
        if not isinstance(error, pulling.NotPulled):
            return "image", None, f"{absent}; it has: {have}"
        return "image", None, f"{absent} (it has: {have[:300]}) and cannot be pulled: {text}"
    if "runtime name" in text:
        absent = f"this VM image has no {job['runtime']} (gVisor)"
        fix = 'a recipe with packages = ["runsc"] makes one that has'
        return "image", None, f"{absent}; {fix}: vmrunner image build gvisor"
    if "/bin/sh" in text and ("no such file" in text or "not found" in text):
        return "image", None, f"container image {name} has no /bin/sh, which steps need"
    what = "did not start" if events.last("container") is None else "was lost"
    return "internal", None, f"container {name} {what}: {text[:500]}"


def of_exit(
    place: Place, job: dict[str, Any], events: EventLog, code: int | None, why: str
) -> Verdict:
    """The verdict on one that exited; `why`: we ended it ourselves."""
    if why:
        return why, None, "" if code is not None else "the container cannot be killed"
    if code is None:
        return "container_gone", None, ""
    step = events.last("step_ended")
    if events.last("step_started") is None:
        if events.last("container") is None:
            return "internal", None, "the supervisor died while it started the container"
        name = job["container"]
        return "image", code, f"container image {name} could not run /bin/sh (exit code {code})"
    if not code:
        return "exit_code", code, ""
    if (step and step["out_of_memory"]) or (code == 137 and place.runtime.saw_oom()):
        return "out_of_memory", code, "a process was killed: the container's memory was used up"
    if step and step["disk_full"]:
        return "disk_full", code, "the VM's disk is full"
    if 128 < code <= 128 + 64:
        return "signal", code, f"ended by signal {code - 128}"
    return "exit_code", code, ""
