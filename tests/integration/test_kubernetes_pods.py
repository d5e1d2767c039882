"""Whole builds in pods with real containers: the driver, exec to the unit's sshd, log, artifacts,
the exit code; and nothing left in the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from vmrunner_localclouds.kube import LocalKube
from vmrunner_localclouds.kube.kinds import JOBS, PODS, SECRETS
from vmrunner_localclouds.pods import Pods

from tests.support.kube_builds import begin, run
from tests.support.loopback_registry import (
    LOGIN,
    SHELL,
    LoopbackRegistry,
    archive,
    packed,
    programs,
)
from tests.support.sshd import wait_for
from tests.support.unit_pods import unit_image
from vmrunner.lib import unit_recipe

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The unit image, and a build's."""
    home = tmp_path_factory.mktemp("registry")
    with LoopbackRegistry(home) as registry:
        layers = [programs([*SHELL.split(), "tar", "gzip"])]
        build = registry.push("build:1", archive(home / "b.tar", layers, Env=["PATH=/bin"]))
        yield unit_image(registry, home), build


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalKube]:
    with Pods(tmp_path / "pods") as pods, LocalKube(pods=pods) as cloud:
        yield cloud


@pytest.mark.parametrize("runtime", ["runc", "gvisor"])
def test_a_whole_build_in_a_pod(
    tmp_path: Path, cluster: LocalKube, images: tuple[str, str], runtime: str
) -> None:
    """Its log and artifact, another's exit code; then their Jobs, secrets and pods are gone."""
    unit, image = images
    words = ("--container", image, "--artifact", "out.txt", "--artifacts-to", "got")
    script = "echo hello; echo made >out.txt"
    done = run(tmp_path, cluster, unit, runtime, *words, "--", "sh", "-c", script)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout
    assert (tmp_path / "cwd/got/out.txt").read_text() == "made\n"
    done = run(tmp_path, cluster, unit, runtime, "--container", image, "--", "sh", "-c", "exit 7")
    assert done.returncode == 7, done.stderr
    wait_for(lambda: not any(cluster.all(kind) for kind in (JOBS, SECRETS, PODS)))
    assert not cluster.rejected


def test_a_private_image_is_pulled_by_its_login(
    tmp_path: Path, cluster: LocalKube, images: tuple[str, str]
) -> None:
    (tmp_path / "registry").mkdir()
    with LoopbackRegistry(tmp_path / "registry", locked=True) as registry:
        layers = archive(tmp_path / "p.tar", [programs(SHELL.split())], Env=["PATH=/bin"])
        image = registry.push("private:1", layers)
        words = ("--container", image, "--", "sh", "-c", "echo it is here")
        login = ("--registry-secret", "LOGIN", "--secret", f"LOGIN=@{tmp_path / 'login'}")
        (tmp_path / "login").write_text(LOGIN)
        done = run(tmp_path, cluster, images[0], "runc", *login, *words)
        assert done.returncode == 0, done.stderr
        assert "it is here" in done.stdout
        assert "geheim" not in done.stdout + done.stderr
    wait_for(lambda: not any(cluster.all(kind) for kind in (JOBS, SECRETS, PODS)))


def test_an_image_without_a_shell_ends_at_once(
    tmp_path: Path, cluster: LocalKube, images: tuple[str, str]
) -> None:
    (tmp_path / "registry").mkdir()
    with LoopbackRegistry(tmp_path / "registry") as registry:
        image = registry.push("bare:1", archive(tmp_path / "b.tar", [programs(["cat"])]))
        done = run(tmp_path, cluster, images[0], "runc", "--container", image, "--", "true")
    assert done.returncode != 0
    assert f"container image {image} has no /bin/sh, which steps need" in done.stderr


def test_an_old_unit_image_is_refused_in_words(
    tmp_path: Path, cluster: LocalKube, images: tuple[str, str]
) -> None:
    """Before anything of a build runs beside a supervisor that is not ours; whoever asked no
    `doctor` learns it here."""
    (tmp_path / "registry").mkdir()
    with LoopbackRegistry(tmp_path / "registry") as registry:
        old = unit_image(registry, tmp_path, recipe="0123456789")
        done = run(tmp_path, cluster, old, "runc", "--container", images[1], "--", "true")
    print(done.stdout, done.stderr)
    assert done.returncode not in (0, 1)
    assert f"is not this vmrunner's, {unit_recipe.current()}" in done.stderr
    assert "vmrunner image build --unit --push" in done.stderr
    wait_for(lambda: not any(cluster.all(kind) for kind in (JOBS, SECRETS, PODS)))


def test_a_retry_runs_the_first_attempts_bytes(tmp_path: Path, images: tuple[str, str]) -> None:
    """Though others were pushed under their tag, and its node has that tag from the registry."""
    (tmp_path / "registry").mkdir()
    shell = programs(SHELL.split())

    def version(text: str) -> Path:
        layers = [shell, packed({"etc/version": f"{text}\n".encode()})]
        return archive(tmp_path / f"{text}.tar", layers, Env=["PATH=/bin"])

    def pods_of(cluster: LocalKube) -> list[str]:
        specs = [machine.last["spec"] for machine in cluster.machines if machine.kind is PODS]
        return [spec["containers"][1]["image"] for spec in specs]

    with (
        LoopbackRegistry(tmp_path / "registry") as registry,
        Pods(tmp_path / "pods") as pods,
        LocalKube(pods=pods) as cluster,
    ):
        tag = f"{registry.address}/app:1"
        first = registry.push("app:1", version("first"))
        script = "cat /etc/version; test $VMRUNNER_ATTEMPT = 2 || sleep 200"
        words = ("--retry-on-loss", "--container", tag, "--", "sh", "-c", script)
        with begin(tmp_path, cluster, images[0], "runc", *words) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == "first\n"
            assert registry.push("app:1", version("second")) != first
            pods.images.forget(tag)
            (pod,) = cluster.all(PODS)
            cluster.delete(PODS, pod)
            out, err = running.communicate(timeout=120)
        assert running.returncode == 0, err
        assert "first" in out
        assert "second" not in out
        assert pods_of(cluster) == [tag, first]
        wait_for(lambda: not any(cluster.all(kind) for kind in (JOBS, SECRETS, PODS)))
