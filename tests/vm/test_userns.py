"""Builds in an image whose recipe gives containers users of their own."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.vm.qemu_fixture import image
from tests.vm.test_session import Vm, booted
from vmrunner.model import ArtifactRule, Network, Result
from vmrunner.session import End

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(3000)]

RECIPE: Final = """
name = "remapped"

[docker]
userns = true
registry_mirror = "http://127.0.0.9:9"
address_pool = "10.99.0.0/16"

[[containers]]
name = "debian:trixie"
"""
MAP: Final = "cat /proc/self/uid_map"


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    root = tmp_path_factory.mktemp("userns")
    recipe = root / "remapped.toml"
    recipe.write_text(RECIPE)
    with booted(root, image(str(recipe))) as vm:
        yield vm


def run(vm: Vm, *scripts: str, **options: Any) -> End:
    return vm.run(*scripts, network=Network.NONE, **options)


def test_root_in_the_container_is_nobody_in_the_vm(vm: Vm, tmp_path: Path) -> None:
    source = tmp_path / "source.tar"
    with tarfile.open(source, "w") as tar:
        given = tarfile.TarInfo("given")
        given.size = len(b"given\n")
        tar.addfile(given, io.BytesIO(b"given\n"))
    verdict = run(
        vm,
        f"{MAP}; id -u; cat given; echo more >>given; mkdir out; echo made >out/file",
        'cat /run/secrets/TOKEN >/dev/null && chown 7 out/file && echo "$TOKEN"',
        secrets={"TOKEN": b"s3cr3t-value-of-a-token"},
        source=source,
        rules=[ArtifactRule(glob="out", always=True)],
    )
    assert verdict.result is Result.SUCCESS, (verdict, vm.log)
    mapped, *lines = vm.log.decode().splitlines()
    assert int(mapped.split()[1]) > 0
    assert lines == ["0", "given", "***"]
    assert (vm.artifacts / "out" / "file").read_text() == "made\n"
    owner = vm.connection.run("stat -c %u /work/given; id -u", timeout=60).stdout.decode().split()
    assert owner == [mapped.split()[1], "0"]


def test_a_build_with_dockers_socket_shares_the_vms_users(vm: Vm) -> None:
    verdict = run(vm, f"{MAP}; test -S /var/run/docker.sock; touch here", docker=True)
    assert verdict.result is Result.SUCCESS, (verdict, vm.log)
    assert vm.log.decode().split()[:2] == ["0", "0"]


def test_docker_is_as_the_recipe_has_it(vm: Vm) -> None:
    output = vm.connection.run(
        "docker info --format '{{.RegistryConfig.Mirrors}} {{.DefaultAddressPools}}'", timeout=60
    ).stdout.decode()
    assert "http://127.0.0.9:9" in output
    assert "10.99.0.0/16" in output
