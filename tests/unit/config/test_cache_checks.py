"""What a build may say of its caches, and what is refused with field, value and fix."""

from __future__ import annotations

from typing import Any

import pytest

from vmrunner.config.build_request import BuildRequest
from vmrunner.config.cache_checks import option
from vmrunner.config.settings import CacheSettings
from vmrunner.errors import ConfigError
from vmrunner.model import CacheRule


def made(**parts: Any) -> tuple[CacheRule, ...]:
    return BuildRequest(caches=[{"key": "k", "path": "/cache", **parts}]).caches


def test_a_table_becomes_a_rule() -> None:
    assert made(key="pip-{hash:**/*.lock}/x y", path="/root/.cache/pip", fallback=["pip-"]) == (
        CacheRule(key="pip-{hash:**/*.lock}/x y", path="/root/.cache/pip", fallback=("pip-",)),
    )
    assert made(path="/work/node_modules")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"path": "cache"}, "cache: 'cache' is no path in the container"),
        ({"path": "/a\nb"}, "cache: '/a\\nb' is no path in the container"),
        ({"path": "/" + "x" * 1024}, "cache: '/xxx"),
        ({"path": "/"}, "cache: '/' is no build's to keep"),
        ({"path": "/proc/self"}, "cache: '/proc/self' is no build's to keep"),
        ({"path": "/run/secrets"}, "cache: '/run/secrets' is no build's to keep"),
        ({"path": "/run"}, "cache: '/run' holds what is not the cache's"),
        ({"path": "/work"}, "cache: '/work' holds what is not the cache's"),
        ({"path": "/a/../etc"}, "cache: '/a/../etc' is not written plainly"),
        ({"path": "/a/"}, "cache: '/a/' is not written plainly"),
        ({"path": 7}, "path of a cache: 7 is not text"),
        ({"key": ""}, "key of a cache: '' cannot be one"),
        ({"key": "a\nb"}, "key of a cache: 'a\\nb' cannot be one"),
        ({"key": "x" * 513}, "key of a cache: 'xxx"),
        ({"key": "{branch}"}, "cache: '{branch}' has braces that mean nothing"),
        ({"key": "{hash:../x}"}, "cache: '../x' is not below the work directory"),
        ({"fallback": ["{hash:x}"]}, "cache: the fallback '{hash:x}' has braces"),
        ({"fallback": "pip-"}, "fallback of a cache: 'pip-' is not a list"),
        ({"fallback": ["x"] * 11}, "fallback of a cache: 11 are too many"),
        ({"mode": "ro"}, "cache: no part 'mode'"),
    ],
)
def test_a_refusal_names_field_value_and_fix(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(**parts)
    assert str(caught.value).startswith(message)
    assert caught.value.hint


@pytest.mark.parametrize("other", ["/cache", "/cache/in/it", "/cach", "/"])
def test_no_cache_lies_in_another(other: str) -> None:
    rules = [{"key": "a", "path": "/cache"}, {"key": "b", "path": other}]
    if other == "/cach":
        assert len(BuildRequest(caches=rules).caches) == 2
    else:
        with pytest.raises(ConfigError, match=r"^cache: "):
            BuildRequest(caches=rules)


def test_the_command_line_splits_at_the_last_path() -> None:
    assert option("a=b=/c") == CacheRule(key="a=b", path="/c")
    with pytest.raises(ConfigError, match="is not KEY=PATH"):
        option("pip")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fallback": [{"ref": "main"}]}, "'ref' is not in scope"),
        ({"max_bytes": "30GiB"}, "max_bytes is above tenant_bytes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CacheSettings.model_validate(values)
