"""The builds of a scale set. What runs is asked of the ledger, by labels; no other list is kept."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from vmrunner.api import entry
from vmrunner.config.build_request import BuildRequest
from vmrunner.config.forges import RUNNER_IMAGE
from vmrunner.errors import ConfigError, Conflict, ServerUnreachable
from vmrunner.integrations.github.plan import RunnersSeen
from vmrunner.model import BuildRecord, Step

if TYPE_CHECKING:
    from vmrunner.config.forges import ForgeTarget, ScaleSetSettings
    from vmrunner.integrations.github.service import JitRunner
    from vmrunner.services.protocols import Service

#: Labels of a runner's build.
SET: Final = "github.scale-set"
SET_ID: Final = "github.scale-set-id"
NUMBER: Final = "github.number"
RUNNER: Final = "github.runner"
#: Where a runner finds its configuration: it takes the variable out of what jobs see.
JIT: Final = "ACTIONS_RUNNER_INPUT_JITCONFIG"
#: It is root in a container in a VM of its own, and says when GitHub takes its version no more.
ENVIRONMENT: Final = {
    "RUNNER_ALLOW_RUNASROOT": "1",
    "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE": "1",
}
_DIGITS: Final = 9  # of a runner's number
_ENDED: Final = 20  # so many of those that ended are looked at


class RunnerBuilds:
    """Runners of one scale set, and the way to one more."""

    def __init__(
        self,
        service: Service,
        place: ForgeTarget,
        settings: ScaleSetSettings,
        login: Callable[[str], Mapping[str, Any]] = lambda _: {},
    ) -> None:
        """`login` gives the options of a build that pulls an image."""
        self._service = service
        self._login = login
        self._host = service.host(None)
        self._settings = settings
        self._word = f"{place.word}#{settings.name}"

    def seen(self) -> RunnersSeen:
        """Return those that live, and those that ended last."""
        builds, labels = self._service.ledger.builds, {SET: self._word}
        live = builds.list(active=True, labels=labels, mine=True)
        ended = builds.list(active=False, labels=labels, limit=_ENDED, mine=True)
        unread = len(getattr(live, "unread", ()))  # a server tells those that it can
        return RunnersSeen(live=tuple(live), ended=tuple(ended), unread=unread)

    def name(self, number: int) -> str:
        """Return a name that no runner had."""
        return f"{self._settings.name}-{number}-{secrets.token_hex(3)}"

    def check(self) -> None:
        """Raises ConfigError for options that no runner can have, where that can be told now."""
        try:
            self._service.submission.check(self._request({}, {}))
        except ConfigError as error:
            where = f"github.scale_sets: {self._settings.name}"
            raise ConfigError(f"{where}: {error.args[0]}", hint=error.hint) from None
        except ServerUnreachable:
            return  # it is asked again for each runner

    def start(self, scale_set: int, number: int, runner: JitRunner) -> BuildRecord | None:
        """Queue the build of a runner. None: another process took this number, and has a build for
        it."""
        labels = {SET: self._word, SET_ID: str(scale_set), NUMBER: str(number), RUNNER: runner.name}
        request = self._request(
            labels,
            {JIT: runner.config.encode()},
            idempotency_key=f"github:{self._word}:{scale_set}:{number}",
        )
        try:
            row, new = entry.enter(self._service, request)
        except Conflict:
            return None
        return row if new else None

    def _request(
        self, labels: Mapping[str, str], given: Mapping[str, bytes], **options: Any
    ) -> BuildRequest:
        values = self._settings.build.values()
        container = str(values.get("container") or RUNNER_IMAGE)
        login = self._login(container)
        fields: dict[str, Any] = {
            **values,
            **login,
            "container": container,
            "secrets": {**login.get("secrets", {}), **given},
            "env": {**ENVIRONMENT, **self._settings.build.env},
            "labels": {**self._settings.build.labels, **labels},
            "steps": (Step(run=self._settings.command, name="runner"),),
        }
        return BuildRequest(**fields, **options)

    def keep_served(self, seen: RunnersSeen) -> None:
        """See to it that an engine serves those that live."""
        for provider in {row.spec.provider for row in seen.live}:
            self._host.ensure(provider, staying=True)


def number_of(row: BuildRecord) -> int:
    """The runner's number in its scale set; 0 for a build that another user labelled so: the
    next would have no name that fits."""
    text = row.spec.labels.get(NUMBER, "")
    return int(text) if len(text) <= _DIGITS and text.isdecimal() else 0
