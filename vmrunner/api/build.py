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
    """A build as it was when it was read; `refresh()` reads it again. Times are epoch seconds. What
    asks the ledger or a server raises `LedgerError`, `ServerUnreachable` or `NotFound`."""

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
        """Id: `b-` and 26 characters, which sort by the time of submission."""
        return self._row.id

    @property
    def row(self) -> Row:
        """The build's row in the ledger."""
        return self._row

    @property
    def name(self) -> str:
        """Name, or ""."""
        return self._row.spec.name

    @property
    def spec(self) -> BuildSpec:
        """The spec that was submitted."""
        return self._row.spec

    @property
    def state(self) -> BuildState:
        """State at the time when it was read."""
        return self._row.state

    @property
    def result(self) -> Result | None:
        """Result; None: it has not ended."""
        return self._row.result

    @property
    def reason(self) -> Reason | None:
        """Reason for its end; None: it has not ended."""
        return self._row.reason

    @property
    def message(self) -> str:
        """One line that says more than the reason, safe to print (a guest may have written it), or
        ""."""
        return ci_commands.text(clean(self._row.message), os.environ)

    @property
    def failed_step(self) -> str | None:
        """The step that failed, ran out of time or was cancelled, by its name or command; None: it
        ended in no step."""
        culprit = self._culprit()
        return None if culprit is None else build_history.title(self._row, culprit.index or 0)

    @property
    def ending(self) -> str:
        """One line about the end in its `failed_step`; without one its `message`."""
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
        """The exit code of its steps, 0 to 255; None: they did not come to one."""
        return self._row.exit_code

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Phases so far, in order; `phase.seconds(now)` is how long one took."""
        return self._row.phases

    @property
    def cost(self) -> float | None:
        """Estimated USD for its VMs with disks and addresses: 0 on your own machine, None where a
        price is unknown. `cost_detail` says whether it is final, and by which prices."""
        return self._row.cost.usd

    @property
    def cost_detail(self) -> Cost:
        """The same with what is known of it: source and date of its prices, whether it is final."""
        return self._row.cost

    @property
    def usage(self) -> BuildUsage:
        """CPU seconds, and bytes of memory, disk and network, that it used, as its VM told at its
        end; each None where unknown."""
        return self._row.usage

    @property
    def instance(self) -> str | None:
        """The id of the VM of its current attempt; None: there is none."""
        return self._row.instance

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels that it was submitted with."""
        return self._row.spec.labels

    @property
    def created_at(self) -> float:
        """The time of its submission."""
        return self._row.created_at

    @property
    def finished_at(self) -> float | None:
        """The time of its end; None: it has not ended."""
        return self._row.finished_at

    @property
    def finished(self) -> bool:
        """True once it has ended and its VM is not held any more."""
        return self._row.finished

    @property
    def artifacts(self) -> BuildArtifacts:
        """The artifacts that it brought back; complete once it has ended."""
        return self._runner.service.artifacts(self._row)

    def refresh(self) -> Build:
        """The same build, read again."""
        return Build(self._runner.service.ledger.builds.get(self.id), self._runner)

    def wait(self, *, timeout: str | float | timedelta | None = None, check: bool = False) -> Build:
        """Wait until it has ended, for `timeout` at most ("30m", seconds or a timedelta; None:
        without end). Raises `NotFinished` (a TimeoutError) when that runs out; with `check` a
        `BuildError` unless it succeeded."""
        return self._runner.wait(self.id, timeout=timeout, check=check)

    def logs(self, *, follow: bool = False, after: int = 0) -> Iterator[LogLine]:
        """Yield its log, line by line from line `after` on: strings with `.seq` (the line's number,
        from 1) and `.time`. `follow`: until it has ended."""
        return self._runner.lines(self.id, follow=follow, after=after)

    def cancel(self) -> Build:
        """Cancel it: it ends, and its VM dies. Returns at once; `wait` for the end."""
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
