"""Answers of GitHub to a scale-set client: the REST API for tokens, and the Actions service.
Written after GitHub's own client (github.com/actions/scaleset); the answers of the REST API are
held against GitHub's OpenAPI document by `tests/unit/integrations/test_fake_github.py`."""

from __future__ import annotations

import base64
import itertools
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import jwt

HOST = "https://github.com"
ORG = f"{HOST}/acme"
API = "https://api.github.com"
SERVICE = "https://pipelines.example/tenant"
TOKEN = "ghp_personal"
TOKEN_LIFE = 3600.0
SILENCE = 50.0  # seconds after which a session that asks for nothing is over
_ADMIN_KEY = "a key of thirty-two bytes or more."

Json = dict[str, Any]


@dataclass
class Answer:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Job:
    """`state`: available, assigned, running, completed. `assigned` counts how often it was."""

    id: int
    scale_set: int
    state: str = "available"
    runner: str = ""
    assigned: int = 0
    result: str = ""


@dataclass
class FakeRunner:
    id: int
    name: str
    scale_set: int
    config: str
    online: bool = False
    job: Job | None = None
    done: bool = False  # it had its one job


@dataclass
class GithubRequest:
    method: str
    path: str
    bearer: str
    body: Any


class GithubAnswers:
    """One organisation, as it answers. Safe in threads."""

    def __init__(self, now: Callable[[], float], *, token_life: float = TOKEN_LIFE) -> None:
        self.now = now
        self.token_life = token_life
        self.service = SERVICE
        self.personal = {TOKEN}
        self.requests: list[GithubRequest] = []
        self.sets: dict[int, Json] = {}
        self.sessions: dict[str, Json] = {}
        self.jobs: dict[int, Job] = {}
        self.runners: dict[int, FakeRunner] = {}
        self.messages: list[Json] = []
        self.trouble: list[
            tuple[str, Answer | Exception]
        ] = []  # for the next request of such a path
        self.down = False
        self.dated = True  # it says what time it is
        self.acknowledges = True  # False: an acknowledgement is lost on its way
        self.shows = True  # False: it finds no runner
        self.session_life = float("inf")
        self._ids = itertools.count(1)
        self._lock = threading.RLock()
        self._admin_epoch = 0

    def ask(self, method: str, url: str, headers: Any, body: Any) -> Answer:
        with self._lock:
            parts = urlsplit(url)
            bearer = headers.get("authorization", "").partition(" ")[2]
            self.requests.append(GithubRequest(method, parts.path, bearer, body))
            if self.down:
                raise httpx2.ConnectError("nobody listens")
            for number, (path, answer) in enumerate(self.trouble):
                if path in parts.path:
                    del self.trouble[number]
                    if isinstance(answer, Exception):
                        raise answer
                    return answer
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            for pattern, wanted, handler in self._routes():
                if (found := re.fullmatch(pattern, parts.path)) and method == wanted:
                    return handler(bearer, query, body, headers, *found.groups())
            return Answer(404, {"message": "Not Found"})

    def _routes(self) -> list[tuple[str, str, Callable[..., Answer]]]:
        rest, sets = r"(?:/api/v3)?", r".*/_apis/runtime/runnerscalesets"
        scope = r"/(?:orgs/[^/]+|repos/[^/]+/[^/]+|enterprises/[^/]+)"
        return [
            (rf"{rest}/app/installations/(\d+)/access_tokens", "POST", self._installation),
            (rf"{rest}{scope}/actions/runners/registration-token", "POST", self._registration),
            (rf"{rest}/actions/runner-registration", "POST", self._register),
            (r".*/_apis/runtime/runnergroups/", "GET", self._groups),
            (sets, "GET", self._find_set),
            (sets, "POST", self._make_set),
            (rf"{sets}/(\d+)", "PATCH", self._change_set),
            (rf"{sets}/(\d+)/sessions", "POST", self._open),
            (rf"{sets}/(\d+)/sessions/([^/]+)", "PATCH", self._renew),
            (rf"{sets}/(\d+)/sessions/([^/]+)", "DELETE", self._close),
            (rf"{sets}/(\d+)/acquirejobs", "POST", self._acquire),
            (rf"{sets}/(\d+)/generatejitconfig", "POST", self._jit),
            (r".*/_apis/distributedtask/pools/0/agents", "GET", self._agents),
            (r".*/_apis/distributedtask/pools/0/agents/(\d+)", "DELETE", self._dismiss),
            (r".*/queue/(\d+)", "GET", self._message),
            (r".*/queue/(\d+)/(\d+)", "DELETE", self._acknowledge),
        ]

    def _installation(self, bearer: str, *_: Any) -> Answer:
        claims = jwt.decode(bearer, options={"verify_signature": False})
        since, until = claims["iat"], claims["exp"]
        if since > self.now() or until <= self.now() or until - since > 600:
            return Answer(401, {"message": "'Expiration time' claim ('exp') is too far away"})
        token = f"ghs_{next(self._ids)}"
        self.personal.add(token)
        return Answer(201, {"token": token, "expires_at": _iso(self.now() + 3600)})

    def _registration(self, bearer: str, *_: Any) -> Answer:
        if bearer not in self.personal:
            return Answer(401, {"message": "Bad credentials"})
        return Answer(
            201, {"token": f"reg{next(self._ids)}", "expires_at": _iso(self.now() + 3600)}
        )

    def _register(self, bearer: str, _query: Json, body: Json, _headers: Any) -> Answer:
        if not bearer.startswith("reg") or body["runner_event"] != "register":
            return Answer(401, {"message": "Bad credentials"})
        claims = {"exp": int(self.now() + self.token_life), "epoch": self._admin_epoch}
        token = jwt.encode(claims, _ADMIN_KEY, algorithm="HS256")
        return Answer(200, {"url": f"{self.service}/", "token": token})

    def _refused(self, bearer: str) -> Answer | None:
        try:
            claims = jwt.decode(bearer, _ADMIN_KEY, ["HS256"], options={"verify_exp": False})
        except jwt.PyJWTError:
            claims = {"exp": 0, "epoch": -1}
        if claims["exp"] <= self.now() or claims["epoch"] != self._admin_epoch:
            return Answer(401, {"message": "the token is over"})
        return None

    def _groups(self, bearer: str, query: Json, *_: Any) -> Answer:
        found = [{"id": 7, "name": "big"}] if query["groupName"] == "big" else []
        return self._refused(bearer) or _listed(found)

    def _find_set(self, bearer: str, query: Json, *_: Any) -> Answer:
        found = [
            scale_set
            for scale_set in self.sets.values()
            if (scale_set["name"], str(scale_set["runnerGroupId"]))
            == (query["name"], query["runnerGroupId"])
        ]
        return self._refused(bearer) or _listed(found)

    def _make_set(self, bearer: str, _query: Json, body: Json, _headers: Any) -> Answer:
        if refused := self._refused(bearer):
            return refused
        made = {**body, "id": next(self._ids)}
        self.sets[made["id"]] = made
        for job in self.jobs.values():  # what waits for a runner of this name finds it again
            if job.state in ("available", "assigned") and job.scale_set not in self.sets:
                job.scale_set, job.state = made["id"], "available"
                self._tell(job, "JobAvailable", acquireJobUrl=f"{self.service}/acquire")
        return Answer(200, made)

    def _change_set(self, bearer: str, _q: Json, body: Json, _h: Any, name: str) -> Answer:
        if refused := self._refused(bearer) or self._unknown(name):
            return refused
        self.sets[int(name)] |= body
        return Answer(200, self.sets[int(name)])

    def _unknown(self, scale_set: str) -> Answer | None:
        if int(scale_set) in self.sets:
            return None
        kind = "GitHub.Actions.Runtime.WebApi.RunnerScaleSetNotFoundException, GitHub.Actions"
        return Answer(404, {"typeName": kind, "message": f"no scale set {scale_set}"})

    def _open(self, bearer: str, _query: Json, body: Json, _headers: Any, name: str) -> Answer:
        if refused := self._refused(bearer) or self._unknown(name):
            return refused
        self.sessions = {
            ident: session
            for ident, session in self.sessions.items()
            if session["heard"] > self.now() - SILENCE
        }
        held = [session for session in self.sessions.values() if session["set"] == int(name)]
        if held:
            kind = "GitHub.Actions.Runtime.WebApi.RunnerScaleSetSessionConflictException, GitHub"
            return Answer(409, {"typeName": kind, "message": f"{held[0]['owner']} has a session"})
        ident = f"s-{next(self._ids)}"
        owner = body["ownerName"]
        self.sessions[ident] = {"set": int(name), "owner": owner, "heard": self.now()}
        return self._session(ident)

    def _session(self, ident: str) -> Answer:
        session = self.sessions[ident]
        session["token"] = f"queue-{ident}-{next(self._ids)}"
        session["until"] = self.now() + self.session_life
        document = {
            "sessionId": ident,
            "ownerName": session["owner"],
            "messageQueueUrl": f"{self.service}/queue/{session['set']}?sessionId={ident}",
            "messageQueueAccessToken": session["token"],
            "statistics": self.statistics(session["set"]),
        }
        return Answer(200, document)

    def _renew(self, bearer: str, _q: Json, _b: Any, _h: Any, name: str, ident: str) -> Answer:
        if refused := self._refused(bearer) or self._unknown(name):
            return refused
        if ident not in self.sessions:
            return Answer(404, {"message": "no such session"})
        return self._session(ident)

    def _close(self, bearer: str, _q: Json, _b: Any, _h: Any, _name: str, ident: str) -> Answer:
        if refused := self._refused(bearer):
            return refused
        self.sessions.pop(ident, None)
        return Answer(204)

    def _of_session(self, bearer: str) -> Answer | None:
        for session in self.sessions.values():
            if session["token"] == bearer and session["until"] > self.now():
                session["heard"] = self.now()
                return None
        return Answer(401, {"message": "the session's token is over"})

    def _message(self, bearer: str, query: Json, _b: Any, headers: Any, name: str) -> Answer:
        if refused := self._of_session(bearer):
            return refused
        assert headers["x-scalesetmaxcapacity"].isdigit()
        last = int(query.get("lastMessageId", 0))
        for message in self.messages:
            if message["set"] == int(name) and message["messageId"] > last:
                return Answer(200, {key: value for key, value in message.items() if key != "set"})
        return Answer(202)

    def _acknowledge(
        self, bearer: str, _q: Json, _b: Any, _h: Any, name: str, which: str
    ) -> Answer:
        if refused := self._of_session(bearer):
            return refused
        if self.acknowledges:
            mine = (int(name), int(which))
            self.messages = [m for m in self.messages if (m["set"], m["messageId"]) != mine]
        return Answer(204)

    def _acquire(self, bearer: str, _q: Json, body: list[int], _h: Any, name: str) -> Answer:
        if refused := self._of_session(bearer) or self._unknown(name):
            return refused
        taken = []
        for ident in body:
            job = self.jobs.get(ident)
            if job is not None and job.state == "available":
                job.state = "assigned"
                job.assigned += 1
                taken.append(ident)
                self._tell(job, "JobAssigned")
        self._match()
        return _listed(taken)

    def _jit(self, bearer: str, _q: Json, body: Json, _h: Any, name: str) -> Answer:
        if refused := self._refused(bearer) or self._unknown(name):
            return refused
        if self.runner(body["name"]) is not None:
            kind = "GitHub.DistributedTask.WebApi.AgentExistsException, GitHub.DistributedTask"
            return Answer(409, {"typeName": kind, "message": f"{body['name']} exists"})
        ident = next(self._ids)
        config = base64.b64encode(json.dumps({".runner": body["name"]}).encode() * 3).decode()
        self.runners[ident] = FakeRunner(ident, body["name"], int(name), config)
        reference = {"id": ident, "name": body["name"], "runnerScaleSetId": int(name)}
        return Answer(200, {"runner": reference, "encodedJITConfig": config})

    def _agents(self, bearer: str, query: Json, *_: Any) -> Answer:
        found = self.runner(query["agentName"])
        listed = [] if found is None or not self.shows else [{"id": found.id, "name": found.name}]
        return self._refused(bearer) or _listed(listed)

    def _dismiss(self, bearer: str, _q: Json, _b: Any, _h: Any, ident: str) -> Answer:
        if refused := self._refused(bearer):
            return refused
        runner = self.runners.get(int(ident))
        if runner is None:
            return Answer(
                404, {"typeName": "GitHub.X.AgentNotFoundException, GitHub", "message": ""}
            )
        if runner.job is not None:
            kind = "GitHub.DistributedTask.WebApi.JobStillRunningException, GitHub"
            return Answer(422, {"typeName": kind, "message": "it has a job"})
        del self.runners[runner.id]
        return Answer(204)

    # --- within ---

    def runner(self, name: str) -> FakeRunner | None:
        return next((runner for runner in self.runners.values() if runner.name == name), None)

    def statistics(self, scale_set: int) -> Json:
        states = [job.state for job in self.jobs.values() if job.scale_set == scale_set]
        mine = [runner for runner in self.runners.values() if runner.scale_set == scale_set]
        return {
            "totalAvailableJobs": states.count("available"),
            "totalAcquiredJobs": states.count("assigned"),
            "totalAssignedJobs": states.count("assigned") + states.count("running"),
            "totalRunningJobs": states.count("running"),
            "totalRegisteredRunners": len(mine),
            "totalBusyRunners": sum(runner.job is not None for runner in mine),
            "totalIdleRunners": sum(runner.online and runner.job is None for runner in mine),
        }

    def _match(self) -> None:
        """Give assigned jobs to runners that wait."""
        for runner in self.runners.values():
            waiting = [
                job
                for job in self.jobs.values()
                if job.state == "assigned" and job.scale_set == runner.scale_set
            ]
            if runner.online and runner.job is None and not runner.done and waiting:
                job = waiting[0]
                job.state, job.runner, runner.job = "running", runner.name, job
                self._tell(job, "JobStarted", runnerId=runner.id, runnerName=runner.name)

    def _tell(self, job: Job, kind: str, **more: Any) -> None:
        """A message, with the counts as they are now."""
        if job.scale_set not in self.sets:
            return
        news = {"messageType": kind, "runnerRequestId": job.id, "jobId": str(job.id), **more}
        self.messages.append(
            {
                "set": job.scale_set,
                "messageId": next(self._ids),
                "messageType": "RunnerScaleSetJobMessages",
                "body": json.dumps([news]),
                "statistics": self.statistics(job.scale_set),
            }
        )


def _listed(found: list[Any]) -> Answer:
    return Answer(200, {"count": len(found), "value": found})


def _iso(at: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
