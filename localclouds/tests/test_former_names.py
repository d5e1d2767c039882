"""Names of before the local clouds were a distribution of their own: `vmrunner.testing`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

import pytest

FORMER = {
    "localazure": ("azure", ["AzureFaults", "LocalAzure", "price"]),
    "localazure.__main__": ("azure.__main__", ["config"]),
    "localec2": ("ec2", ["Ec2Faults", "LocalCloud"]),
    "localec2.faults": ("ec2.faults", ["Ec2Faults"]),
    "localgce": ("gce", ["GceFaults", "LocalGce"]),
    "vms": ("vms", ["Vms"]),
    "common.virtual_clock": ("common.virtual_clock", []),
}


@pytest.fixture(autouse=True)
def _as_in_a_new_process() -> Iterator[None]:
    yield
    for name in [name for name in sys.modules if name.startswith("vmrunner.testing.")]:
        del sys.modules[name]


@pytest.mark.parametrize("former", FORMER)
def test_a_former_name_is_the_same_module(former: str) -> None:
    """Not a second copy, whose classes would be others: `isinstance` and `except` depend on it."""
    now, members = FORMER[former]
    with pytest.warns(DeprecationWarning, match=" is vmrunner_localclouds") as caught:
        module = importlib.import_module(f"vmrunner.testing.{former}")
    messages = [str(warning.message) for warning in caught]
    assert messages[-1] == f"vmrunner.testing.{former} is vmrunner_localclouds.{now} now"
    today = importlib.import_module(f"vmrunner_localclouds.{now}")
    assert module is today
    assert today.__spec__ is not None
    assert today.__spec__.name == today.__name__ == f"vmrunner_localclouds.{now}"
    for member in members:
        assert getattr(module, member)


def test_the_warning_points_at_the_import() -> None:
    with pytest.warns(DeprecationWarning, match="localec2 is") as caught:
        from vmrunner.testing.localec2 import LocalCloud  # noqa: F401
    assert {warning.filename for warning in caught} == {__file__}


def test_a_name_that_never_was_is_no_module() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"vmrunner\.testing\.nosuch"):
        importlib.import_module("vmrunner.testing.nosuch")
