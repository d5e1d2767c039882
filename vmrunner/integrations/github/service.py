"""The Actions service: scale sets, their messages, and runners.

GitHub documents it by its own client, github.com/actions/scaleset.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vmrunner.integrations.github import messages
from vmrunner.integrations.github.errors import GithubError, understood
from vmrunner.integrations.github.http import GithubHttp
from vmrunner.integrations.github.identity import ServiceTokens
from vmrunner.integrations.github.messages import JobMessage, MessageSession, ScaleSet

API: Final = {"api-version": "6.0-preview"}
_SETS: Final = "_apis/runtime/runnerscalesets"
_RUNNERS: Final = "_apis/distributedtask/pools/0/agents"
_DEFAULT_GROUP: Final = ("default", 1)


@dataclass(frozen=True, slots=True)
class JitRunner:
    """A runner that may come once. `config` is all that it needs, and a secret."""

    id: int
    name: str
    config: str


class ActionsService:
    """The service of one place. Safe in threads."""

    def __init__(self, http: GithubHttp, tokens: ServiceTokens) -> None:
        self._http = http
        self._tokens = tokens

    # --- scale sets ---

    def find(self, group: str, name: str) -> ScaleSet | None:
        """Return the scale set of this name, if there is one."""
        params = {"runnerGroupId": str(self._group(group)), "name": name}
        answer = self._ask("GET", _SETS, params=params)
        with understood("a list of scale sets"):
            found = [item for item in answer["value"] if _is(item, name)]
            return messages.scale_set(found[0]) if found else None

    def create(self, group: str, name: str, labels: Collection[str]) -> ScaleSet:
        """Make it. Its runners are as new as their image: they do not update themselves."""
        body = {
            "name": name,
            "runnerGroupId": self._group(group),
            "labels": _labels(labels),
            "RunnerSetting": {"disableUpdate": True},
        }
        return self._made(self._ask("POST", _SETS, body=body))

    def relabel(self, scale_set: ScaleSet, labels: Collection[str]) -> ScaleSet:
        """Give it other labels."""
        body = {"name": scale_set.name, "labels": _labels(labels)}
        return self._made(self._ask("PATCH", f"{_SETS}/{scale_set.id}", body=body))

    @staticmethod
    def _made(answer: Any) -> ScaleSet:
        with understood("a scale set"):
            return messages.scale_set(answer)

    def _group(self, name: str) -> int:
        if name.lower() == _DEFAULT_GROUP[0]:
            return _DEFAULT_GROUP[1]
        answer = self._ask("GET", "_apis/runtime/runnergroups/", params={"groupName": name})
        with understood("a list of runner groups"):
            for group in answer["value"]:
                if _is(group, name):
                    return int(group["id"])
        raise GithubError(
            f"github.scale_sets: no runner group {name!r}",
            hint="make it at GitHub, or leave runner_group out",
        )

    # --- messages ---

    def open_session(self, scale_set: int, owner: str) -> MessageSession:
        """Begin to hear its messages. Raises GithubError with status 409 while another hears
        them."""
        path = f"{_SETS}/{scale_set}/sessions"
        return self._opened(self._ask("POST", path, body={"ownerName": owner}))

    def renew_session(self, scale_set: int, session: MessageSession) -> MessageSession:
        """Return the same session with a new token. Raises GithubError with status 404 once it is
        over."""
        path = f"{_SETS}/{scale_set}/sessions/{session.id}"
        return self._opened(self._ask("PATCH", path))

    @staticmethod
    def _opened(answer: Any) -> MessageSession:
        with understood("a session"):
            return messages.session(answer)

    def close_session(self, scale_set: int, session: MessageSession) -> None:
        """Let another hear them."""
        self._ask("DELETE", f"{_SETS}/{scale_set}/sessions/{session.id}")

    def next_message(self, session: MessageSession, last: int, capacity: int) -> JobMessage | None:
        """Wait for the message after `last`; None when none comes for a while. Raises GithubError
        with status 401 when the session's token is over."""
        found = self._http.ask(
            "GET",
            session.queue,
            bearer=session.token,
            params={"lastMessageId": str(last)} if last else None,
            headers={
                "Accept": "application/json; api-version=6.0-preview",
                "X-ScaleSetMaxCapacity": str(capacity),
            },
        )
        return messages.message(found) if found is not None else None

    def acknowledge(self, session: MessageSession, message: int) -> None:
        """Say that a message is dealt with, so that it does not come again."""
        head, mark, query = session.queue.partition("?")
        self._http.ask("DELETE", f"{head}/{message}{mark}{query}", bearer=session.token)

    def acquire(self, scale_set: int, session: MessageSession, requests: Collection[int]) -> None:
        """Take jobs, so that they are assigned to this scale set. Those that are taken already, or
        gone, are left out."""
        path = f"{_SETS}/{scale_set}/acquirejobs"
        self._ask("POST", path, body=list(requests), bearer=session.token)

    # --- runners ---

    def make_runner(self, scale_set: int, name: str) -> JitRunner:
        """Announce a runner, which is gone after its first job."""
        path = f"{_SETS}/{scale_set}/generatejitconfig"
        found = self._ask("POST", path, body={"name": name, "workFolder": "_work"})
        with understood("a runner"):
            config = str(found["encodedJITConfig"])
            config.encode("ascii")  # it goes into an environment
            return JitRunner(int(found["runner"]["id"]), name, config)

    def find_runner(self, name: str) -> int | None:
        """Return the id of a runner that has not come yet, waits, or has a job."""
        found = self._ask("GET", _RUNNERS, params={"agentName": name})
        with understood("a list of runners"):
            return next(
                (int(runner["id"]) for runner in found["value"] if runner["name"] == name), None
            )

    def dismiss(self, runner: int) -> bool:
        """Give a runner no job any more, so that it leaves. False: it has one."""
        try:
            self._ask("DELETE", f"{_RUNNERS}/{runner}")
        except GithubError as error:
            if error.kind == "JobStillRunningException":
                return False
            if error.status != 404:
                raise
        return True

    def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        bearer: str | None = None,
    ) -> Any:
        """Ask with our token, or a session's. One of ours that is refused is had anew, once."""
        access = self._tokens.access()
        for last in (False, True):
            try:
                return self._http.ask(
                    method,
                    f"{access.url}/{path}",
                    bearer=bearer or access.token,
                    body=body,
                    params={**API, **(params or {})},
                )
            except GithubError as error:
                if error.status != 401 or bearer is not None or last:
                    raise
                self._tokens.forget(access)
                access = self._tokens.access()
        raise AssertionError


def _is(document: Mapping[str, Any], name: str) -> bool:
    """True if it is of this name: who ignores a filter answers with all."""
    return str(document["name"]).lower() == name.lower()


def _labels(names: Collection[str]) -> list[dict[str, str]]:
    return [{"name": name, "type": "System"} for name in sorted(names)]
