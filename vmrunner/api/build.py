"""Build, the API's handle: a build as it was when it was read, with the things one does to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from vmrunner.api.errors import BuildCancelled, BuildError, BuildFailed, BuildLost, BuildTimeout
from vmrunner.errors import LedgerError
from vmrunner.lib import ci_commands
from vmrunner.lib.terminal import clean
from vmrunner.model import BuildRecord as Row
from vmrunner.model import BuildSpec, BuildState, BuildUsage, Cost, LogLine, Phase, Reason, Result
from vmrunner.services import build_history
from vmrunner.services.artifacts import Artifact as Artifact
from vmrunner.services.artifacts import Artifacts as Artifacts

if TYPE_CHECKING:
    from vmrunner.api.runner import Runner
    from vmrunner.services.protocols import BuildArtifacts

log = logging.getLogger("vmrunner")


class Build:
    """A build as it was when it was read; `refresh()` reads it again."""

    def __init__(self, row: Row, runner: Runner) -> None:
        self._row = row
        self._runner = runner

    def __repr__(self) -> str:
        end = f" {self.result.value}" if self.result else ""
        return f"<Build {self.id} {self.state.value}{end}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Build) and other._row == self._row

    def __hash__(self) -> int:
        return hash(self._row.id)

    @property
    def id(self) -> str:
        return self._row.id

    @property
    def row(self) -> Row:
        """The build's row in the ledger."""
        return self._row

    @property
    def name(self) -> str:
        return self._row.spec.name

    @property
    def spec(self) -> BuildSpec:
        """The spec that was submitted."""
        return self._row.spec

    @property
    def state(self) -> BuildState:
        return self._row.state

    @property
    def result(self) -> Result | None:
        return self._row.result

    @property
    def reason(self) -> Reason | None:
        return self._row.reason

    @property
    def message(self) -> str:
        """One line beside the reason, to be printed: a guest may have written it."""
        return ci_commands.text(clean(self._row.message), os.environ)

    @property
    def failed_step(self) -> str | None:
        """The step in which it ended otherwise than well, by its name or command."""
        culprit = self._culprit()
        return None if culprit is None else build_history.title(self._row, culprit.index or 0)

    @property
    def ending(self) -> str:
        """The end in that step, in one line; else its message."""
        culprit = self._culprit()
        return self.message if culprit is None else build_history.describe(self._row, culprit)

    def _culprit(self) -> build_history.StepRun | None:
        events = self._runner.service.ledger.events.list(self.id)
        return build_history.culprit(self._row, events)

    @property
    def waiting(self) -> str:
        """The reason why it is queued, looked up now; "" when it is not."""
        if self.state is not BuildState.QUEUED:
            return ""
        return self._runner.service.waiting([self.refresh()._row]).get(self.id, "")

    @property
    def exit_code(self) -> int | None:
        return self._row.exit_code

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Return its phases, with times; `phase.seconds(now)` is how long one took."""
        return self._row.phases

    @property
    def cost(self) -> float | None:
        """USD that its VMs have cost with disk and address, estimated; None: a price is unknown; 0
        where the machine is your own. `cost_detail` says if it is final, and by which prices."""
        return self._row.cost.usd

    @property
    def cost_detail(self) -> Cost:
        return self._row.cost

    @property
    def usage(self) -> BuildUsage:
        """CPU, memory, disk and network that it used, as its VM told at its end; None: unknown."""
        return self._row.usage

    @property
    def instance(self) -> str | None:
        """The id of its VM, the current attempt's."""
        return self._row.instance

    @property
    def labels(self) -> Mapping[str, str]:
        return self._row.spec.labels

    @property
    def created_at(self) -> float:
        return self._row.created_at

    @property
    def finished_at(self) -> float | None:
        return self._row.finished_at

    @property
    def finished(self) -> bool:
        return self._row.finished

    @property
    def artifacts(self) -> BuildArtifacts:
        """Return its artifacts; complete once it has ended."""
        return self._runner.service.artifacts(self._row)

    def refresh(self) -> Build:
        """The same build, read again."""
        return Build(self._runner.service.ledger.builds.get(self.id), self._runner)

    def wait(self, *, timeout: str | float | timedelta | None = None, check: bool = False) -> Build:
        """Wait until it has ended. `NotFinished` (a TimeoutError) when `timeout` runs out first;
        `check`: raise a `BuildError` unless it succeeded."""
        return self._runner.wait(self.id, timeout=timeout, check=check)

    def logs(self, *, follow: bool = False, after: int = 0) -> Iterator[LogLine]:
        """Yield its log, line by line from line `after` on: strings with `.seq` (the line's number,
        from 1) and `.time`. `follow`: until it has ended."""
        return self._runner.lines(self.id, follow=follow, after=after)

    def cancel(self) -> Build:
        """Cancel it: it ends, and its VM dies. Returns at once."""
        return self._runner.cancel(self.id)


_ENDS: Final[Mapping[Result, tuple[type[BuildError], str]]] = {
    Result.FAILURE: (BuildFailed, "its log: build.logs()"),
    Result.TIMEOUT: (BuildTimeout, "a longer timeout; where the time went: build.phases"),
    Result.CANCELLED: (BuildCancelled, "when and why: vmrunner show {id}"),
    Result.ERROR: (BuildLost, "run it again; what was lost: vmrunner show {id}"),
}


def raise_for(build: Build) -> None:
    """Raise what a build's end is called, unless it succeeded."""
    result = build.result
    if result is None or result is Result.SUCCESS:
        return
    kind, hint = _ENDS[result]
    outcome = f"exit code {build.exit_code}" if build.exit_code is not None else build.message
    try:
        outcome = build.ending or outcome
    except LedgerError as error:  # that it ended is known all the same
        log.warning("%s", error)
    reason = build.reason.value if build.reason else "unknown"
    raise kind(
        f"{build.id}: {result.value}, {reason}: {outcome or 'no more is known'}",
        build=build,
        hint=hint.format(id=build.id),
    )
