"""An image from a small recipe, end to end: killed half way, gone on with, booted, changed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.loopback_registry import LoopbackRegistry, archive, packed
from vmrunner import images
from vmrunner.errors import ConfigError
from vmrunner.images import recipe as recipes
from vmrunner.images.local import docker_store, rootfs
from vmrunner.images.local.builder import build
from vmrunner.images.local.programs import ChildPrograms
from vmrunner.images.recipe import Container, Docker, Inputs, Recipe
from vmrunner.lib.resources import GUEST
from vmrunner.model import Level

from .home import CACHE, Home, processes_with, text, wait_until

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a Debian docker-registry on loopback that holds `tiny:1`."""
    home = tmp_path_factory.mktemp("registry")
    with LoopbackRegistry(home) as registry:
        layer = packed({"hello": b"hello\n"})
        registry.push("tiny:1", archive(home / "tiny.tar", [layer], Cmd=["/hello"]))
        yield registry.address


# --- the build ----------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """A cache of the test's own. The VM's root is the default recipe's: when the user's cache
    still has its tar, it is borrowed."""
    cache = tmp_path / "cache"
    (cache / "stages").mkdir(parents=True)
    root = f"root-{recipes.root_hash(images.find('default'), Inputs.read())}.tar"
    kept = Path(CACHE) / "vmrunner" / "stages" / root
    if kept.exists():
        (cache / "stages" / root).symlink_to(kept)
    yield cache
    scratch = rootfs.scratch(cache)
    remaining = list(scratch.iterdir())
    scratch.rmdir()
    assert remaining == []


def small(registry: str) -> Recipe:
    return Recipe(
        name="small",
        containers=(
            Container(name="made:1", command=("true",), env={"PATH": recipes.PATH}),
            Container(name="pulled:1", pull=f"{registry}/tiny:1", insecure=True),
        ),
    )


CHILD = """
import sys
from pathlib import Path
from vmrunner.images.local.builder import build
from vmrunner.images.recipe import load
build(load(Path(sys.argv[1])), cache=Path(sys.argv[2]),
      progress=lambda p: print(p.stage, p.message, flush=True))
"""


def killed_while_filling(registry: str, cache: Path, file: Path) -> None:
    """Start a build in a process of its own and kill it, hard, while it fills the disk."""
    file.write_text(
        f"""
        name = "small"
        [[containers]]
        name = "made:1"
        command = ["true"]
        [[containers]]
        name = "pulled:1"
        pull = "{registry}/tiny:1"
        insecure = true
        """
    )
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(file), str(cache)], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("disk "):
                wait_until(lambda: fillers(cache), seconds=60, what="the disk to be made")
                os.kill(child.pid, signal.SIGKILL)
                break
        else:
            pytest.fail("the build ended before it made a disk")


def fillers(cache: Path) -> list[str]:
    return [line for line in processes_with([str(cache)]) if "mke2fs" in line]


@pytest.mark.long  # `make test` builds and verifies the default one
def test_a_small_image(registry: str, cache: Path, tmp_path: Path) -> None:
    killed_while_filling(registry, cache, tmp_path / "small.toml")
    wait_until(lambda: not fillers(cache), seconds=60, what="the end of the dead builder's mke2fs")
    assert list((cache / "images").glob(".new-*"))
    assert images.images(cache) == []

    stages: list[str] = []
    recipe = small(registry)
    image = build(recipe, cache=cache, progress=lambda p: stages.append(p.stage))
    assert set(stages) == {"plan", "disk", "image"}, "what was made before is made again"
    assert not list((cache / "images").glob(".new-*"))
    assert image == images.resolve(cache, "small")
    assert image.containers == ("made:1", "pulled:1")

    findings = images.verify(image)
    assert [f for f in findings if f.level is not Level.OK] == []

    # Nothing to do; then a change of the supervisor, which costs one cheap stage.
    stages.clear()
    assert build(recipe, cache=cache, progress=lambda p: stages.append(p.stage)) == image
    assert stages == []
    guest = tmp_path / "guest"
    shutil.copytree(GUEST, guest, ignore=shutil.ignore_patterns("__pycache__"))
    (guest / "extra.py").write_text("# more\n")
    changed = Inputs.read(guest)
    other = build(recipe, cache=cache, inputs=changed, progress=lambda p: stages.append(p.stage))
    assert set(stages) == {"plan", "disk", "image"}
    assert other.hash != image.hash

    # A damaged image is refused, and made again from what is kept.
    with other.disk.open("ab") as file:
        file.write(b"x")
    assert images.images(cache) == [image]
    assert build(recipe, cache=cache, inputs=changed).size == other.size


# --- what a registry refuses --------------------------------------------------------------------


def pull(container: Container, to: Path) -> None:
    to.mkdir(exist_ok=True)
    at = docker_store.place(Docker())
    rootfs.pull(container, to=to, at=at, programs=ChildPrograms(), report=lambda *_: None)


def test_what_a_registry_refuses(registry: str, tmp_path: Path) -> None:
    """Each in the words of the recipe, with the fix; nothing is left."""
    secure = Container(name="x:1", pull=f"{registry}/tiny:1")
    with pytest.raises(ConfigError, match=r"no valid certificate .*insecure = true"):
        pull(secure, tmp_path / "x")
    unknown = Container(name="x:2", pull=f"{registry}/tiny:2", insecure=True)
    with pytest.raises(ConfigError, match=r"tiny:2': no such image"):
        pull(unknown, tmp_path / "x")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{closed.getsockname()[1]}/tiny:1"
        with pytest.raises(ConfigError, match="cannot be reached"):
            pull(Container(name="x:3", pull=nobody, insecure=True), tmp_path / "x")
    assert list((tmp_path / "x").iterdir()) == []


def test_two_builders_do_not_fight(cache: Path) -> None:
    """The second one says that it waits; here the first one's lock is a plain one."""
    import fcntl
    import threading

    with (cache / "build.lock").open("a+") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        events: list[images.Progress] = []
        waits = threading.Event()

        def note(event: images.Progress) -> None:
            events.append(event)
            waits.set()
            if event.stage != "waiting":
                raise InterruptedError

        def second() -> None:
            with pytest.raises(InterruptedError):
                build(
                    Recipe(name="x", containers=(Container(name="a:1"),)),
                    cache=cache,
                    progress=note,
                )

        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(30)
        assert events[0].stage == "waiting"
        assert "pid 4711" in events[0].message
        fcntl.flock(lock, fcntl.LOCK_UN)
        thread.join(60)
    assert [e.stage for e in events[:2]] == ["waiting", "waiting"]


def test_the_default_image_is_what_it_should_be(home: Home) -> None:
    """The one that all other tests boot, by the command that users have."""
    done = home.run("image", "verify", "default", "-o", "json")
    assert done.returncode == 0, text(done.stdout + done.stderr)
    findings = {item["check"]: item["level"] for item in json.loads(done.stdout)["items"]}
    promised = {"disk.qcow2", "boot", "supervisor", "sshd", "ports", "docker", "containers", "sbom"}
    assert promised | {"secrets", "leftovers", "timers", "user-data"} <= findings.keys()
    assert set(findings.values()) == {"ok"}
    assert list((home.root / "tmp").iterdir()) == []
    assert list(processes_with([str(home.root)])) == []
