"""GitHub as a scale-set client sees it. Time is what `now` says. Nobody waits here: who asks for a
message when there is none is told so."""

from __future__ import annotations

import json
from email.utils import formatdate

import httpx2

from tests.support.github_answers import (
    API,
    ORG,
    SERVICE,
    TOKEN,
    Answer,
    FakeRunner,
    GithubAnswers,
    GithubRequest,
    Job,
)

__all__ = ["API", "ORG", "SERVICE", "TOKEN", "Answer", "FakeGithub", "FakeRunner", "Job"]


class FakeGithub(GithubAnswers):
    """One organisation, and what happens there. Safe in threads."""

    def transport(self) -> httpx2.MockTransport:
        def handle(request: httpx2.Request) -> httpx2.Response:
            body = json.loads(request.content) if request.content else None
            found = self.ask(request.method, str(request.url), request.headers, body)
            content = {} if found.body is None else {"content": json.dumps(found.body)}
            date = {"date": formatdate(self.now(), usegmt=True)} if self.dated else {}
            return httpx2.Response(found.status, headers={**date, **found.headers}, **content)

        return httpx2.MockTransport(handle)

    def next(self, path: str, answer: Answer | Exception, times: int = 1) -> None:
        """Let the next requests whose path holds this fare so."""
        self.trouble += [(path, answer)] * times

    def queue_job(self) -> Job:
        """A workflow wants a runner of the one scale set."""
        with self._lock:
            (scale_set,) = self.sets
            job = Job(next(self._ids), scale_set)
            self.jobs[job.id] = job
            self._tell(job, "JobAvailable", acquireJobUrl=f"{self.service}/acquire")
            return job

    def queue_jobs(self, count: int) -> list[Job]:
        return [self.queue_job() for _ in range(count)]

    def cancel(self, job: Job, *, again: bool = False) -> None:
        """It is taken from us. `again`: and offered again."""
        with self._lock:
            for runner in self.runners.values():
                if runner.job is job:
                    runner.job, runner.done = None, True
            job.state, job.result = "completed", "canceled"
            self._tell(job, "JobCompleted", result="canceled", runnerId=0, runnerName=job.runner)
            if again:
                job.state, job.runner = "available", ""
                if job.scale_set not in self.sets:  # made anew since: it is wanted by its labels
                    job.scale_set = next(iter(self.sets), job.scale_set)
                self._tell(job, "JobAvailable", acquireJobUrl=f"{self.service}/acquire")

    def comes(self, name: str) -> FakeRunner | None:
        """The runner of this name is up. None: it may not register any more."""
        with self._lock:
            runner = self.runner(name)
            if runner is not None and not runner.online:
                runner.online = True
                self._match()
            return runner

    def finish(self, job: Job, result: str = "succeeded") -> None:
        """Its runner is done with it."""
        with self._lock:
            (runner,) = (runner for runner in self.runners.values() if runner.job is job)
            job.state, job.result = "completed", result
            runner.job, runner.done = None, True
            self._tell(
                job, "JobCompleted", result=result, runnerId=runner.id, runnerName=runner.name
            )
            del self.runners[runner.id]  # it came once

    def delete_scale_set(self) -> None:
        """Somebody did, behind our back."""
        with self._lock:
            self.sets.clear()
            self.sessions.clear()
            self.messages.clear()
            for runner in list(self.runners.values()):
                if runner.job is None:
                    del self.runners[runner.id]

    def expire_session(self) -> None:
        """The token of the session is over, but not the session."""
        for session in self.sessions.values():
            session["until"] = self.now() - 1

    def end_sessions(self) -> None:
        self.sessions.clear()

    def revoke_service_tokens(self) -> None:
        self._admin_epoch += 1

    def paths(self, word: str) -> list[GithubRequest]:
        return [request for request in self.requests if word in request.path]
