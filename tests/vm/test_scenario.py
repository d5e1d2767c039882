"""One job on every provider, with real VMs: whatever runs it, what comes back is the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.amazon import credentials
from tests.vm.home import Home, text
from tests.vm.local_cloud import Local, newcomer
from tests.vm.local_ec2 import LocalEc2
from tests.vm.local_gce import LocalGce

pytestmark = [pytest.mark.vm, pytest.mark.clouds, pytest.mark.timeout(900)]

SCENARIO: Final = Path(__file__).parents[2] / "examples/scenario"
PROVIDERS: Final = ("qemu", "aws", "gce")


class Outcome(NamedTuple):
    """All that a build gives its caller. Artifacts: path → mode, content."""

    code: int
    out: bytes
    artifacts: dict[str, tuple[int, bytes]]


@pytest.fixture
def clouds(tmp_path: Path) -> Iterator[list[Local]]:
    with credentials():
        clouds: list[Local] = [
            kind.start(tmp_path / kind.NAME)  # one file, one scratch directory each
            for kind in (LocalEc2, LocalGce)
        ]
        yield clouds
        for cloud in clouds:
            cloud.end()


@pytest.fixture
def home(clouds: list[Local], tmp_path: Path) -> Iterator[Home]:
    home = newcomer(tmp_path / "home", *clouds)
    yield home
    home.assert_nothing_left()


def outcome(home: Home, provider: str) -> Outcome:
    to = home.root / "cwd" / provider
    done = home.run(
        "run", "--provider", provider, "-f", str(SCENARIO / "vmrunner.yml"), "pack",
        "--source", str(SCENARIO), "--artifacts-to", str(to),
    )  # fmt: skip
    print(text(done.stderr))
    found = {
        str(path.relative_to(to)): (path.stat().st_mode, path.read_bytes())
        for path in sorted(to.rglob("*"))
        if path.is_file()
    }
    return Outcome(done.returncode, done.stdout, found)


def test_one_job_is_the_same_on_every_provider(home: Home) -> None:
    first, *others = (outcome(home, provider) for provider in PROVIDERS)
    print(text(first.out))
    assert first.code == 3
    assert b"bytes: \x00\xff\n" in first.out
    assert first.out.endswith(b"20000\n1 of 2 tests failed\n")
    assert sorted(first.artifacts) == ["out/numbers.txt", "out/source.tar.gz"]
    for other in others:
        assert other == first
    assert [row["provider"] for row in home.instances()].count("gce") == 1
