"""A build in the Python API: a snapshot of it, and calls to follow or cancel it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self

from vmrunner.api.errors import BuildCancelled, BuildError, BuildFailed, BuildLost, BuildTimeout
from vmrunner.errors import ConfigError, LedgerError
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
    """A snapshot of a build, from `Runner.submit`, `run`, `get` or `list`. `refresh()` reads it
    again; nothing here changes by itself. Times are epoch seconds.

    Methods, and `waiting` and `artifacts`, ask the ledger or the server, and raise `LedgerError`,
    `ServerUnreachable` or `NotFound`; where it was pickled and came from another process,
    `ConfigError`."""

    def __init__(self, row: Row, runner: Runner | None) -> None:
        """`runner`: who is asked; None: nobody, in a process that has no more than the snapshot."""
        self._row = row
        self._origin = runner

    @property
    def _runner(self) -> Runner:
        if self._origin is None:
            raise ConfigError(
                f"{self.id} came from another process, without its Runner",
                hint="Runner().get(build.id) has one",
            )
        return self._origin

    def __reduce__(self) -> tuple[type[Build], tuple[Row, None]]:
        """Pickled it is its snapshot: ledgers and connections are their process's own."""
        return Build, (self._row, None)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __repr__(self) -> str:
        end = f" {self.result.value}" if self.result else ""
        return f"<Build {self.id} {self.state.value}{end}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Build) and other._row == self._row

    def __hash__(self) -> int:
        return hash(self._row.id)

    @property
    def id(self) -> str:
        """Id: `b-` and 26 characters. Ids sort by the time of submission."""
        return self._row.id

    @property
    def row(self) -> Row:
        """The build's row in the ledger."""
        return self._row

    @property
    def name(self) -> str:
        """Name from the submission, or ""."""
        return self._row.spec.name

    @property
    def spec(self) -> BuildSpec:
        """All options of the submission, with defaults filled in; of secrets the names only."""
        return self._row.spec

    @property
    def state(self) -> BuildState:
        """State at the time of the snapshot."""
        return self._row.state

    @property
    def result(self) -> Result | None:
        """Result; None until the build has ended."""
        return self._row.result

    @property
    def reason(self) -> Reason | None:
        """Reason for the end; None until the build has ended."""
        return self._row.reason

    @property
    def message(self) -> str:
        """One line with more detail than the reason, or "". A guest may have written it; control
        characters are removed, so it is safe to print."""
        return ci_commands.text(clean(self._row.message), os.environ)

    @property
    def failed_step(self) -> str | None:
        """Name or command of the step that failed, timed out or was cancelled; None if the build
        did not end in a step."""
        culprit = self._culprit()
        return None if culprit is None else build_history.title(self._row, culprit.index or 0)

    @property
    def ending(self) -> str:
        """One line about the end of `failed_step`; `message` if there is no such step."""
        culprit = self._culprit()
        return self.message if culprit is None else build_history.describe(self._row, culprit)

    def _culprit(self) -> build_history.StepRun | None:
        events = self._runner.service.ledger.events.list(self.id)
        return build_history.culprit(self._row, events)

    @property
    def waiting(self) -> str:
        """Reason why the build waits in the queue, read now; "" if it does not wait."""
        if self.state is not BuildState.QUEUED:
            return ""
        return self._runner.service.waiting([self.refresh()._row]).get(self.id, "")

    @property
    def exit_code(self) -> int | None:
        """Exit code of the steps, 0 to 255; None if they have not ended by themselves."""
        return self._row.exit_code

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Phases so far, in order. `phase.seconds(now)` is the duration of one, in seconds."""
        return self._row.phases

    @property
    def cost(self) -> float | None:
        """Estimated USD for its VMs with disks and addresses. 0 on your own machine; None if a
        price is unknown. `cost_detail` has the prices, and tells an estimate from a final sum."""
        return self._row.cost.usd

    @property
    def cost_detail(self) -> Cost:
        """The cost with the source and date of its prices, and `final`: True if it cannot grow."""
        return self._row.cost

    @property
    def usage(self) -> BuildUsage:
        """CPU seconds and bytes of memory, disk and network that the build used. Its VM reports
        most of them at the end, and could lie. A figure is None if unknown."""
        return self._row.usage

    @property
    def instance(self) -> str | None:
        """Id of the VM of the current attempt; None if there is none."""
        return self._row.instance

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels from the submission."""
        return self._row.spec.labels

    @property
    def created_at(self) -> float:
        """Time of the submission, in epoch seconds."""
        return self._row.created_at

    @property
    def finished_at(self) -> float | None:
        """Time of the end, in epoch seconds; None until the build has ended."""
        return self._row.finished_at

    @property
    def finished(self) -> bool:
        """True once the build has ended and its VM is no longer held."""
        return self._row.finished

    @property
    def artifacts(self) -> BuildArtifacts:
        """Artifacts that the build brought back; complete once it has ended."""
        return self._runner.service.artifacts(self._row)

    def refresh(self) -> Build:
        """Return a new snapshot of the build."""
        return Build(self._runner.service.ledger.builds.get(self.id), self._runner)

    def wait(self, *, timeout: str | float | timedelta | None = None, check: bool = False) -> Build:
        """Wait until it has ended, for `timeout` at most ("30m", seconds or a timedelta; None:
        without end). Raises `NotFinished` (a TimeoutError) when that runs out; with `check` a
        `BuildError` unless it succeeded."""
        return self._runner.wait(self.id, timeout=timeout, check=check)

    def logs(self, *, follow: bool = False, after: int = 0) -> Iterator[LogLine]:
        """Yield the lines of the log after line number `after`, as `LogLine`: a string with `.seq`
        (its number, from 1) and `.time`. With `follow`, wait for more lines until the build has
        ended."""
        return self._runner.lines(self.id, follow=follow, after=after)

    def cancel(self) -> Build:
        """Cancel the build and end its VM. Returns a new snapshot at once; `wait` for the end."""
        return self._runner.cancel(self.id)


_ENDS: Final[Mapping[Result, tuple[type[BuildError], str]]] = {
    Result.FAILURE: (BuildFailed, "its log: build.logs()"),
    Result.TIMEOUT: (BuildTimeout, "a longer timeout; where the time went: build.phases"),
    Result.CANCELLED: (BuildCancelled, "when and why: vmrunner show {id}"),
    Result.ERROR: (BuildLost, "run it again; what was lost: vmrunner show {id}"),
}


def raise_for(build: Build) -> None:
    """Raise the `BuildError` that fits the end of a build. A success raises nothing."""
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
