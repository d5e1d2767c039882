"""The tables of pools: each mistake names its field, its value and the fix."""

from __future__ import annotations

from typing import Any

import pytest

from vmrunner.config.pools import pool_specs
from vmrunner.config.settings import Settings
from vmrunner.errors import ConfigError
from vmrunner.model import Network, PoolSpec

CLOUDS = {
    "aws": {"kind": "ec2"},
    "google": {"kind": "gce", "machine_types": ["n2-standard-2"]},
    "microsoft": {"kind": "azure"},
    "local": {"kind": "fake"},
}


def specs(table: dict[str, Any], name: str = "fast", **settings: Any) -> dict[str, PoolSpec]:
    providers = settings.pop("providers", {"local": {"kind": "fake"}, "far": {"kind": "qemu"}})
    settings.setdefault("default_provider", "local")
    return pool_specs(
        Settings.model_validate({"providers": providers, "pools": {name: table}, **settings})
    )


def test_what_is_left_out_is_as_for_a_build() -> None:
    spec = specs({"size": 4}, defaults={"network": "none", "container": "c"})["fast"]
    assert (spec.provider, spec.container, spec.network) == ("local", "c", Network.NONE)
    assert (spec.ttl, spec.idle, spec.size) == (3600.0, 1800.0, 4)


def test_a_schedule_and_a_hit_rate_are_sizes_too() -> None:
    entry = {"cron": "0 8 * * 1-5", "size": 8}
    assert specs({"schedule": [entry]})["fast"].schedule == (("0 8 * * 1-5", 8),)
    spec = specs({"hit_rate": 0.95, "min": 1, "max": 9})["fast"]
    assert (spec.hit_rate, spec.least, spec.most) == (0.95, 1, 9)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "pools.fast: no size is given"),
        ({"size": 1, "hit_rate": 0.5}, "pools.fast: size and hit_rate are given"),
        ({"size": 1, "max": 3}, "pools.fast: min and max are for hit_rate"),
        ({"hit_rate": 0.5}, "pools.fast: hit_rate needs max"),
        ({"hit_rate": 0.5, "min": 4, "max": 3}, r"min <= max \(min = 4, max = 3\)"),
        ({"size": 1, "provider": "aws"}, "pools.fast.provider: no provider 'aws' is configured"),
        ({"size": 1, "ttl": "4h"}, r"idle \+ ttl \+ 5 min is 4h35m, more than limits.max_ttl 4h"),
        ({"size": 1, "kind": "parked", "provider": "far"}, "pools.fast.kind: far is of a kind"),
        ({"size": 1, "kind": "parked", "spot": True}, "pools.fast.spot: a spot VM cannot"),
        ({"size": 1, "container_runtime": "runsc"}, "pools.fast.container_runtime: only cont"),
        ({"size": 1, "ttl": 0}, "pools.fast.ttl: 0s leaves no time"),
        ({"size": 1, "idle": "0s"}, "pools.fast.idle: 0s leaves no time"),
        ({"size": 1, "container": ""}, "pools.fast.container: '' is not a container image's name"),
        ({"size": 1, "container": "a b"}, "pools.fast.container: 'a b' is not a container image"),
        ({"size": 1, "image": " "}, "pools.fast.image: empty"),
        ({"size": 1, "memory": 1}, r"pools.fast.memory: 1 B is too little \(at least 256"),
        ({"size": 1, "disk": "1MiB"}, r"pools.fast.disk: 1.0 MiB is too little \(at least 1.0 G"),
    ],
)
def test_a_pool_that_cannot_be_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        specs(table)


@pytest.mark.parametrize(
    "table",
    [
        {"size": True},
        {"size": 1, "cpus": True},
        {"size": 1, "usd_per_day": False},
        {"size": 1, "usd_per_day": float("inf")},
        {"hit_rate": 0.5, "max": True},
        {"schedule": [{"cron": "0 8 * * *", "size": True}]},
    ],
)
def test_what_is_no_number_sizes_no_pool(table: dict[str, Any]) -> None:
    """`true` is 1 to Python, and JSON has no infinity."""
    with pytest.raises(ValueError, match=r"neither true nor false|finite"):
        specs(table)


def test_the_providers_there_are_are_told_once() -> None:
    with pytest.raises(ConfigError) as wrong:
        specs({"size": 1, "provider": "moon"})
    assert str(wrong.value) == (
        "pools.fast.provider: no provider 'moon' is configured (one of: far, local)"
    )


def test_a_pool_without_any_provider_says_so() -> None:
    with pytest.raises(ConfigError, match=r"^pools\.fast: default_provider: not set"):
        specs({"size": 1}, default_provider=None)


def test_a_pool_may_name_a_machine_type() -> None:
    table = {"size": 1, "provider": "aws", "machine_type": "m7i.large"}
    spec = specs(table, providers=CLOUDS)["fast"]
    assert (spec.machine_type, spec.cpus, spec.memory) == ("m7i.large", None, None)


@pytest.mark.parametrize(
    ("field", "value", "given"), [("cpus", 2, "2"), ("memory", "4GiB", "4GiB")]
)
def test_a_machine_type_says_its_own_size(field: str, value: object, given: str) -> None:
    message = (
        f"pools.fast.machine_type: 'large' has {field} of its own, and {field} = {given} is given"
    )
    with pytest.raises(ConfigError, match=message) as wrong:
        specs({"size": 1, "machine_type": "large", field: value})
    assert wrong.value.hint == f"leave {field} out, or machine_type"


@pytest.mark.parametrize(
    ("provider", "setting", "machine_type"),
    [
        ("aws", "instance_types", "m7i.large"),
        ("google", "machine_types", "n2-standard-2"),
        ("microsoft", "machine_types", "Standard_D2s_v5"),
    ],
)
def test_a_type_that_its_provider_never_offers_is_refused(
    provider: str, setting: str, machine_type: str
) -> None:
    table = {"size": 1, "provider": provider, "machine_type": "huge"}
    with pytest.raises(ConfigError, match=f"{provider} does not offer 'huge'") as wrong:
        specs(table, providers=CLOUDS)
    assert str(wrong.value).startswith("pools.fast.machine_type: ")
    assert machine_type in wrong.value.hint
    assert wrong.value.hint.endswith(f"or add it to providers.{provider}.{setting}")


def test_a_machine_type_is_meant_however_it_is_capitalised() -> None:
    """Azure takes either, and tells its own."""
    table = {"size": 1, "provider": "microsoft", "machine_type": "standard_d2s_V5"}
    assert specs(table, providers=CLOUDS)["fast"].machine_type == "standard_d2s_V5"


def test_types_that_no_setting_lists_are_taken_at_their_word() -> None:
    assert specs({"size": 1, "machine_type": "huge"})["fast"].machine_type == "huge"


@pytest.mark.parametrize("name", ["Fast", "fast pool", "", "-fast", "f" * 41, "fast_1"])
def test_a_name_is_one_that_every_cloud_takes(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name of a pool"):
        specs({"size": 1}, name)


@pytest.mark.parametrize(
    "table",
    [
        {"size": -1},
        {"size": 10_001},
        {"hit_rate": 0.5, "max": 10**20},
        {"hit_rate": 1.0, "max": 2},
        {"hit_rate": 0.0, "max": 2},
        {"schedule": [{"cron": "often", "size": 1}]},
        {"size": 1, "usd_per_day": -1},
        {"size": 1, "machine_type": ""},
        {"size": 1, "machine_type": ["small"]},
        {"sise": 1},
    ],
)
def test_a_value_out_of_its_bounds_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        specs(table)
