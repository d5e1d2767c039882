"""Builds in a row, then builds at once; afterwards nothing of them is left. `make soak` asks for
20 and 4."""

from __future__ import annotations

import pytest

from tests.vm.home import Home, text

pytestmark = [pytest.mark.vm, pytest.mark.timeout(7200)]

RUN = ("run", "--network", "none", "--")


def test_builds_in_a_row_then_at_once_leave_nothing(
    home: Home, request: pytest.FixtureRequest
) -> None:
    for n in range(request.config.getoption("--soak-builds")):
        done = home.run(*RUN, "sh", "-c", f"echo build {n}; exit {n % 2}")
        assert (done.returncode, done.stdout) == (n % 2, b"build %d\n" % n), text(done.stderr)
        home.assert_nothing_left()

    runs = [
        home.start(*RUN, "sh", "-c", f"echo at once {n}")
        for n in range(request.config.getoption("--soak-parallel"))
    ]
    for n, run in enumerate(runs):
        out, err = run.communicate(timeout=1200)
        assert (run.returncode, out) == (0, b"at once %d\n" % n), text(err)
    assert {row["state"] for row in home.builds()} == {"finished"}
    assert {row["state"] for row in home.instances()} == {"gone"}
