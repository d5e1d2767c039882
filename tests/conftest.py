"""Options that every part of the suite understands."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import new_ledgers


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak-builds", type=int, default=1, help="builds in a row in the soak test")
    parser.addoption("--soak-parallel", type=int, default=2, help="builds at once in the soak test")
    parser.addoption("--soak-kills", type=int, default=3, help="builds killed at random moments")
    parser.addoption("--soak-seed", type=int, default=1, help="of those moments")
    parser.addoption("--survive-turns", type=int, default=2, help="cuts and kills in one build")
    parser.addoption("--survive-cut", type=float, default=20, help="seconds of each cut")


#: Bytes of memory that must be free for the files of tests: beside theirs a VM's disk of the
#: default size has room, without which builds are refused beforehand.
ROOM = 18 << 30


def pytest_configure(config: pytest.Config) -> None:
    new_ledgers.install()
    _hear_interrupts()
    if "not vm" in config.option.markexpr and _has_room(memory := Path("/dev/shm")):
        # Each commit of their ledgers waits for the disk otherwise. VMs' disks have no room there.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


@pytest.fixture(autouse=True)
def _umask_stays() -> Iterator[None]:
    """Each test leaves the process's mask as it was: with another, what tests after it write may be
    anybody's to change, and a configuration that is so does not count."""
    before = _umask()
    yield
    if (after := _umask()) != before:
        os.umask(before)
        pytest.fail(f"this test left the umask {after:o}, and found {before:o}")


def _umask() -> int:
    status = Path("/proc/self/status").read_text()  # to ask `umask` would change it for a moment
    return int(status.partition("Umask:")[2].split(maxsplit=1)[0], 8)


#: What `make test` leaves to `make test-all`: ids of tests, without parameters for all of them.
WIDE = Path(__file__).with_name("wide.txt")


def wide() -> frozenset[str]:
    """The ids in `WIDE`, without comments."""
    lines = (line.partition("  #")[0].strip() for line in WIDE.read_text().splitlines())
    return frozenset(line for line in lines if line and not line.startswith("#"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    listed = wide()
    if "VMRUNNER_TEST_KUBE_URL" in os.environ:  # a real control plane: tests/support/kube.py
        _leave_out("standin", config, items)
    if os.geteuid():
        _leave_out("root", config, items)
    for item in items:
        if listed & {item.nodeid, item.nodeid.partition("[")[0]}:
            item.add_marker("wide")


def pytest_collection_finish() -> None:
    """Keep what was imported out of garbage collections, which come more rarely too: they took a
    tenth of the tests' CPU time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _leave_out(marker: str, config: pytest.Config, items: list[pytest.Item]) -> None:
    apart = [item for item in items if item.get_closest_marker(marker)]
    config.hook.pytest_deselected(items=apart)
    items[:] = [item for item in items if item not in apart]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what an ordinary user did not run, and which tests needed a second try, here and to
    `scripts/test-parts`."""
    if os.geteuid():
        terminalreporter.write_line(
            "not run, for they need root: containers of pods and units of a local Kubernetes "
            "(as root: .venv/bin/pytest -m root)"
        )
    again = [report.nodeid for report in terminalreporter.stats.get("rerun", [])]
    if again and (listing := os.environ.get("SECOND_TRIES")):
        with Path(listing).open("a") as file:
            file.writelines(f"{test}\n" for test in again)


def _has_room(directory: Path) -> bool:
    try:
        programs = not os.statvfs(directory).f_flag & os.ST_NOEXEC
        return programs and shutil.disk_usage(directory).free > ROOM
    except OSError:
        return False


def _hear_interrupts() -> None:
    """A shell's background ignores Ctrl-C, and whatever is started from there does. Tests that send
    it must not depend on where they were started."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# A loaded machine is no failure: no test is held to a time, those that Hypothesis draws neither.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
