"""Which drivers there are: ours from any tree, others by their entry point, and no broken one."""

from __future__ import annotations

import logging
import socket
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import thirdparty
from tests.support.exec_server import stream_server
from vmrunner.errors import ConfigError
from vmrunner.lib.channels import TCP, UNIX_SOCKET
from vmrunner.lib.websocket_channel import WebSocketChannel
from vmrunner.model import Address
from vmrunner.providers import Provider, registry
from vmrunner.providers.port import Driver
from vmrunner.providers.registry import drivers

ROOT = Path(__file__).parents[3]
OURS = {"azure", "ec2", "fake", "gce", "kubernetes", "qemu"}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in which distributions are installed. The registry looks anew, and no module
    from there outlives the test: another test has its own of that name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    drivers.cache_clear()
    before = set(sys.modules)
    yield tmp_path
    drivers.cache_clear()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def test_ours_are_found_without_metadata(monkeypatch: pytest.MonkeyPatch, site: Path) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    assert registry.drivers().keys() == OURS


def test_ours_are_declared_as_anybodys_are() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    points = project["entry-points"][registry.GROUP]
    assert points == {kind: f"vmrunner.providers.{kind}:DRIVER" for kind in OURS}


@pytest.mark.parametrize("kind", sorted(OURS))
def test_what_a_driver_names_is_there(kind: str) -> None:
    driver = registry.drivers()[kind]
    settings = registry.settings_of(driver)
    assert settings.model_fields["kind"].annotation.__args__ == (kind,)
    assert settings.harmless <= settings.model_fields.keys()
    assert registry.defaults(kind).keys() <= settings.model_fields.keys() | {"used"}
    assert all(price.usd_hour > 0 for price in registry.prices(kind).values())
    assert (ROOT / "cloud-init" / f"{driver.platform}.yaml").is_file()


def test_a_channel_is_tcp_unless_the_driver_names_one(site: Path) -> None:
    """No provider is opened for it: that may need an SDK, and ask a cloud."""
    thirdparty.install(site)

    def opened() -> Provider:
        raise AssertionError("it was opened")

    found = {kind: registry.channel(kind, opened) for kind in (*OURS, "elsewhere", "gone")}
    assert isinstance(found.pop("kubernetes"), WebSocketChannel)
    assert found == {kind: UNIX_SOCKET if kind == "qemu" else TCP for kind in found}


def test_a_channel_may_be_made_of_its_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that goes through a cloud's own door, with its credentials."""
    named = "tests.support.exec_server:channel"
    driver = Driver(kind="far", settings="", open=lambda _: provider, channel=named)
    monkeypatch.setattr(registry, "drivers", lambda: {"far": driver})
    with stream_server() as server, socket.create_server(("127.0.0.1", 0)) as listener:
        provider: Any = SimpleNamespace(url=server.url, token=server.token)
        server.pods[Address("ns/pod")] = Address(*listener.getsockname())
        channel = registry.channel("far", lambda: registry.load("far", "x"))
        with channel.open(Address("ns/pod")) as stream, listener.accept()[0] as peer:
            peer.sendall(b"hello")
            stream.settimeout(30)
            assert stream.recv(5) == b"hello"


def test_of_a_kind_that_was_uninstalled_nothing_is_known() -> None:
    assert registry.find("gone") is None
    assert registry.prices("gone") == {}


BROKEN = {
    "absent": ("no_such_module:DRIVER", "No module named 'no_such_module'"),
    "crash": ("crash:DRIVER", "ZeroDivisionError"),
    "other": ("elsewhere:open", "it is no `vmrunner.providers.Driver`"),
    "renamed": ("elsewhere:DRIVER", "its kind is 'elsewhere'"),
    "qemu": ("thief:DRIVER", "there is a driver of kind 'qemu' already"),
    "bare": ("bare:DRIVER", "no ProviderSettings with max_instances"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_one_is_left_out_and_told(
    kind: str, site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    thirdparty.install(site)
    (site / "crash.py").write_text("1 / 0")
    (site / "thief.py").write_text("from vmrunner.providers.qemu import DRIVER")
    (site / "bare.py").write_text(
        "from vmrunner.providers.port import Driver\n"
        "DRIVER = Driver(kind='bare', settings='vmrunner.lib.config_section:Section', open=print)"
    )
    value, why = BROKEN[kind]
    thirdparty.metadata(site, "broken", **{kind: value})
    caplog.set_level(logging.WARNING)
    assert registry.drivers().keys() == OURS | {"elsewhere", "nameless"}
    assert registry.drivers()["qemu"].settings.startswith("vmrunner.")
    (message,) = caplog.messages
    assert message.startswith(f"driver {kind} ({value}) is left out: ")
    assert why in message


def test_a_missing_sdk_is_told_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def sdk(name: str) -> None:
        raise ModuleNotFoundError("", name="sdk")

    driver = Driver(kind="far", settings="", open=sdk, extra="far[sdk]")  # type: ignore[arg-type]
    monkeypatch.setattr(registry, "drivers", lambda: {"far": driver})
    with pytest.raises(ConfigError, match="needs the Python package 'sdk'") as refused:
        registry.load("far", "x")
    assert refused.value.hint == "pip install 'far[sdk]'"
