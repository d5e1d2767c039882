"""Packer, run as a program: found, told to clean up when it is broken off, and its words read.

Packer ends what it made when it is interrupted once, which takes minutes; interrupted twice, it
leaves at once, and so do its plugins when they are told. So a shell stands between: one SIGTERM, or
the death of vmrunner, becomes one SIGINT to all of them, as a terminal would send it; a program
that is not done in time is killed, and what it leaves has its deadline.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vmrunner.errors import ConfigError, ImageError
from vmrunner.images.local.builder import Callback, Progress
from vmrunner.images.local.programs import ChildPrograms, environment, which
from vmrunner.lib import resources
from vmrunner.providers.port_images import BuilderSpec

INSTALL: Final = "install it: https://developer.hashicorp.com/packer/install"
#: So long it may take to clean up, in seconds: a VM that must stop, a key, a group.
PACKER_STOP_TIMEOUT: Final = 300.0
_DIED: Final = "unexpected EOF"  # all that Packer says of a plugin that died
_INIT: Final = 600.0  # seconds to fetch plugins
#: Its words go through a relay that outlives their reader: a program that writes to no reader dies,
#: and Packer must not before it has cleaned up. Dash's own words go nowhere for the same reason.
_GUARD: Final = """
stop() {
    trap "" TERM INT
    exec 2>/dev/null
    (sleep %d; kill -KILL 0) &
    kill -INT 0
    wait "$child"
    kill -KILL 0
}
mkfifo words.$$
{ cat; cat >/dev/null; } <words.$$ &
relay=$!
env --default-signal=INT -- "$@" >words.$$ 2>&1 &
child=$!
trap stop TERM
wait "$child"
code=$?
wait "$relay"
exit "$code"
"""
_STAGE: Final = 60  # characters of what it says it does
#: Stages that every plugin has (see `BuilderSpec.stages`).
_STAGES: Final = ("Waiting for SSH", "Provisioning", "Stopping")
_COMMA: Final = "%!(PACKER_COMMA)"
_LAST: Final = 12  # lines of its output that an error shows


def require() -> str:
    """Return the path of Packer. Raises ConfigError when it is not on PATH."""
    found = which("packer")
    if found is None:
        raise ConfigError("packer: not on PATH; images in a cloud are made by it", hint=INSTALL)
    return found


def run(bench: BuilderSpec, *, variables: Path, timeout: float, progress: Callback) -> str:
    """Make one image; returns the artifact's id, as its plugin writes it. Raises ImageError with
    its last words."""
    programs = ChildPrograms(guard=_GUARD % PACKER_STOP_TIMEOUT, patience=PACKER_STOP_TIMEOUT + 15)
    heard = PackerOutput(progress, bench.stages)
    try:
        programs.run(
            [
                *(require(), "build", "-machine-readable", "-color=false", "-on-error=cleanup"),
                *(f"-only={bench.source}", f"-var-file={variables}", str(resources.path("packer"))),
            ],
            what="packer build",
            timeout=timeout,
            env=_environment(bench.environment),
            cwd=variables.parent,
            line=heard.line,
        )
    except ImageError as error:
        message = heard.message(str(error).partition("\n")[0])
        raise ImageError(message, hint=bench.died if _DIED in message else "") from None
    finally:
        heard.end()
    if heard.artifact is None:
        raise ImageError(heard.message("packer build: it ended well, and told of no image"))
    return heard.artifact


def init(*, work: Path, extra: Mapping[str, str], progress: Callback) -> None:
    """Fetch the plugins that the templates pin. Raises ImageError."""
    began = time.monotonic()
    progress(Progress(stage="packer init", fraction=0.0, seconds=0.0))
    ChildPrograms(guard=_GUARD % 10, patience=15).run(
        [require(), "init", str(resources.path("packer"))],
        what="packer init",
        timeout=_INIT,
        env=_environment(extra),
        cwd=work,
    )
    seconds = time.monotonic() - began
    progress(Progress(stage="packer init", fraction=1.0, seconds=seconds))


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    return environment(CHECKPOINT_DISABLE="1", PACKER_NO_COLOR="1", **extra)


@dataclass(eq=False)
class PackerOutput:
    """Packer's machine-readable output (`time,target,type,data…`), as far as it was heard."""

    progress: Callback
    stages: tuple[str, ...] = ()
    clock: Callable[[], float] = time.monotonic
    artifact: str | None = None
    _errors: list[str] = field(default_factory=list)
    _last: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST))
    _stage: str = ""
    _began: float = 0.0

    def line(self, text: str) -> None:
        """Take in one line. What is not of that form is told as it is."""
        parts = text.split(",")
        if len(parts) < 4 or not parts[0].isdigit():
            self._words(text)
            return
        kind, values = parts[2], [_plain(part) for part in parts[3:]]
        if kind == "ui" and len(values) > 1:
            self._ui(values[0], ",".join(values[1:]))
        elif kind == "error":
            self._errors.append(",".join(values).strip())
        elif kind == "artifact" and len(values) > 2 and values[1] == "id":
            self.artifact = values[2]

    def end(self) -> None:
        """End the stage that runs: nothing more comes."""
        if self._stage:
            self._tell(1.0, "")
            self._stage = ""

    def message(self, what: str) -> str:
        """A failure: its errors, or else the last that it said."""
        words = self._errors or list(self._last)
        return "\n".join([what, *words])

    def _ui(self, kind: str, text: str) -> None:
        for line in text.splitlines():
            self._words(line)
        head = text.strip().partition("\n")[0]
        words = _short(head)
        stage = self._stage_of(words) if kind == "say" and head.startswith("==> ") else ""
        if stage and stage != self._stage:
            self.end()
            self._stage, self._began = stage, self.clock()
            self._tell(0.0, "")
        elif self._stage:
            self._tell(None, words)

    def _stage_of(self, words: str) -> str:
        """The stage that begins with these words, or nothing. Scripts are many, and one stage."""
        begins = next((begin for begin in (*_STAGES, *self.stages) if words.startswith(begin)), "")
        return begins if begins == "Provisioning" else words if begins else ""

    def _words(self, text: str) -> None:
        if text.strip():
            self._last.append(text.rstrip())

    def _tell(self, fraction: float | None, message: str) -> None:
        seconds = self.clock() - self._began
        event = Progress(stage=self._stage, fraction=fraction, seconds=seconds, message=message)
        self.progress(event)


def _plain(text: str) -> str:
    return text.replace(_COMMA, ",").replace("\\n", "\n").replace("\\r", "\r")


def _short(text: str) -> str:
    """Return the text without which source says it: there is one."""
    words = text.removeprefix("==> ").strip()
    with contextlib.suppress(ValueError):
        name, rest = words.split(": ", 1)
        words = rest if "." in name and " " not in name else words
    return words[:_STAGE]
