"""No VM is promised a longer life than its system can give, wherever one is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vmrunner.config import pools
from vmrunner.config.build_request import BuildRequest, SandboxRequest
from vmrunner.config.settings import Settings
from vmrunner.errors import ConfigError
from vmrunner.model import Step
from vmrunner.providers import registry
from vmrunner.services import requests

TABLES: dict[str, Any] = {
    "providers": {"brief": {"kind": "qemu"}},
    "limits": {"max_ttl": "12h"},
}
MAKE = (Step(argv=("make",)),)
WHOSE = "the 8h that provider brief \\(qemu\\) can give"


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this kind no VM lives for more than eight hours."""
    genuine = registry.find

    def find(kind: str) -> Any:
        driver = genuine(kind)
        return replace(driver, max_ttl=8 * 3600.0) if kind in ("qemu", "fake") else driver

    monkeypatch.setattr(registry, "find", find)


def settings(**tables: Any) -> Settings:
    return Settings.model_validate(TABLES | tables)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (BuildRequest(steps=MAKE, timeout="8h"), f"timeout: 8h is not below {WHOSE}"),
        (
            BuildRequest(steps=MAKE, ttl="9h"),
            f"ttl: 9h is above {WHOSE}",
        ),
        (SandboxRequest(ttl="8h"), f"ttl: 8h and 15m to boot are above {WHOSE}"),
    ],
)
def test_a_longer_life_is_refused_before_it_is_queued(request_: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        requests.check(request_, settings())


def test_the_default_ttl_is_within_what_can_be() -> None:
    checked = requests.check(BuildRequest(steps=MAKE, timeout="7h59m"), settings())
    assert checked.spec.ttl == 8 * 3600


def test_the_configurations_own_limit_counts_where_it_is_less() -> None:
    with pytest.raises(ConfigError, match=r"above limits\.max_ttl 2h"):
        requests.check(BuildRequest(steps=MAKE, ttl="9h"), settings(limits={"max_ttl": "2h"}))


def test_what_was_queued_before_is_checked_again() -> None:
    spec = requests.check(BuildRequest(steps=MAKE), settings()).spec
    with pytest.raises(ConfigError, match=WHOSE):
        requests.check_again(replace(spec, ttl=9 * 3600.0), settings())


def test_a_pools_vms_live_no_longer() -> None:
    pool = {"fast": {"size": 1, "idle": "4h", "ttl": "4h", "provider": "brief"}}
    with pytest.raises(ConfigError, match=f"more than {WHOSE}"):
        pools.pool_specs(settings(pools=pool))
