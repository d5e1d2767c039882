"""Runners of forges whose VMs are a server's: the same words, over HTTP with a token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import vmrunner
from tests.integration.test_http_sandboxes import Pretended
from tests.integration.test_http_sandboxes import served as served  # the fixture
from tests.support.command_line import home as home  # the fixture
from tests.support.fake_github import ORG
from tests.support.http_service import TENANT, Service
from vmrunner.api.remote_service import RemoteService
from vmrunner.config import forges, sources
from vmrunner.config.forges import GarmSettings, GitlabSettings, ScaleSetSettings
from vmrunner.config.settings import Settings
from vmrunner.errors import NotFound, SandboxOver
from vmrunner.integrations.garm import bootstrap
from vmrunner.integrations.garm.provider import GarmProvider
from vmrunner.integrations.github.runners import JIT, RUNNER, RunnerBuilds, number_of
from vmrunner.integrations.github.service import JitRunner
from vmrunner.integrations.gitlab.executor import GitlabExecutor
from vmrunner.integrations.gitlab.job import GitlabJob
from vmrunner.model import Reason


@pytest.fixture
def service(home: Path) -> Iterator[Service]:
    service = Service(home, None, sources.load().settings)
    yield service
    service.close()


@pytest.fixture
def elsewhere(service: Service) -> Iterator[RemoteService]:
    """A client with a tenant's token, and nothing else."""
    client = RemoteService(service.url, service.token(TENANT, labels={"team": "core"}))
    yield client
    client.client.close()


def test_a_scale_set_starts_each_number_once_at_a_server(
    service: Service, elsewhere: RemoteService
) -> None:
    settings = ScaleSetSettings.model_validate({"name": "fast", "build": {"provider": "fake"}})
    first, second = (RunnerBuilds(elsewhere, forges.target(ORG), settings) for _ in range(2))
    row = first.start(7, 1, JitRunner(1, "fast-1-a", "the config"))
    assert row is not None
    assert second.start(7, 1, JitRunner(2, "fast-1-b", "another")) is None
    (live,) = second.seen().live
    assert (live.id, number_of(live), live.spec.labels[RUNNER]) == (row.id, 1, "fast-1-a")
    assert service.app.ledger.builds.secrets(row.id) == {JIT: b"the config"}


def test_garm_has_its_instances_at_a_server(service: Service, elsewhere: RemoteService) -> None:
    garm = GarmProvider(elsewhere, GarmSettings(), "controller")
    other = GarmProvider(elsewhere, GarmSettings(), "another")
    wanted = bootstrap.read(b'{"name": "garm-1", "instance-token": "t", "flavor": "default"}')
    made = garm.create("pool", wanted)
    assert garm.create("pool", wanted) == garm.get("garm-1") == made
    assert garm.instances("pool") == [made]
    with pytest.raises(NotFound):
        other.get("garm-1")
    garm.delete(made["provider_id"])
    assert service.app.ledger.builds.get(made["provider_id"]).cancel is Reason.USER


def test_a_job_of_gitlab_runs_at_a_server(served: tuple[Service, Pretended]) -> None:
    service, _ = served
    mine, theirs = (
        vmrunner.Runner(url=service.url, token=service.token(TENANT, labels={"team": team}))
        for team in ("core", "other")
    )
    job = GitlabJob(server="gitlab.example.org", id="7", proof="p", masked=("hunter2-hunter2",))
    settings = GitlabSettings()
    with mine, theirs:
        executor = GitlabExecutor(mine, settings, job)
        build = executor.prepare(Settings())
        assert executor.prepare(Settings()).id == build.id
        assert service.app.ledger.builds.secrets(build.id) == {
            "GITLAB_MASKED_0": b"hunter2-hunter2"
        }
        chunks: list[bytes] = []
        assert executor.run(b"make", "build_script", lambda _, data: chunks.append(data)) == 3
        assert b"build_script" in b"".join(chunks)
        other = GitlabExecutor(theirs, settings, job)
        other.clean_up()
        with pytest.raises(SandboxOver):
            other.run(b"make", "build_script", lambda *_: None)
        executor.clean_up()
        assert service.ended(build.id).reason is Reason.USER
