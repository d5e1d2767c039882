"""Builds and errors on their way through a pool of processes."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Iterator

import pytest

import vmrunner
from tests.support.fake_runner import app, runner
from vmrunner import errors
from vmrunner.api.errors import BuildError
from vmrunner.api.sandbox import CommandFailed, CommandResult
from vmrunner.errors import ConfigError, VmrunnerError

pytestmark = pytest.mark.timeout(60)
__all__ = ["app", "runner"]


def every_error(build: vmrunner.Build) -> Iterator[VmrunnerError]:
    """One of each class that a caller may meet."""
    result = CommandResult(exit_code=3, stdout_bytes=b"out", stderr_bytes=b"err")
    yield CommandFailed("make test", result)
    yield ConfigError("a", hint="h", more=[ConfigError("b", hint="c")], line=3)
    yield errors.Throttled("a", hint="h", instance="vm-1", wait=3.0)
    for kind in (BuildError, *BuildError.__subclasses__()):
        yield kind("it failed", build=build, hint="its log")
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, VmrunnerError):
            yield kind("a", hint="h")


def test_each_error_comes_back_with_its_fields(runner: vmrunner.Runner) -> None:
    """A pool of processes breaks, with all in it, at one that does not."""
    for error in every_error(runner.run("exit 0")):
        for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
            assert type(again) is type(error)
            assert str(again) == str(error)
            was, found = vars(error), vars(again)
            assert {name: str(value) for name, value in found.items()} == {
                name: str(value) for name, value in was.items()
            }


def test_a_build_comes_back_as_its_snapshot(runner: vmrunner.Runner) -> None:
    build = runner.run("exit 0", env={"A": "1"}, secrets={"TOKEN": b"s3cr3t-value"})
    packed = pickle.dumps(build)
    again = pickle.loads(packed)
    assert again == build
    assert (again.result, again.spec, again.cost) == (build.result, build.spec, build.cost)
    assert b"s3cr3t" not in packed
    with pytest.raises(ConfigError, match=rf"{build.id} came from another process.*Runner\(\)"):
        again.refresh()
    for copied in (copy.copy(build), copy.deepcopy(build)):
        assert copied.refresh() == build
