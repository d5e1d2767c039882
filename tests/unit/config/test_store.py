"""The table `[store]`."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrunner.config import paths, sources
from vmrunner.config import settings as config
from vmrunner.errors import ConfigError
from vmrunner.lib.store_url import StoreUrl


def settings_of(tmp_path: Path, **values: str) -> config.Settings:
    environ = {f"VMRUNNER_STORE__{name.upper()}": value for name, value in values.items()}
    return sources.load(environ=environ, start=tmp_path).settings


def test_the_default_is_a_directory_beside_the_ledger(tmp_path: Path) -> None:
    settings = config.Settings.model_validate(
        {"database": {"url": f"sqlite:///{tmp_path}/a b/ledger.db"}}
    )
    url = StoreUrl.parse(paths.store_url(settings))
    assert url == StoreUrl("file", "", f"{tmp_path}/a b/ledger.db.d/store")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:relative/dir", "an absolute directory"),
        ("file://host/dir", "an absolute directory"),
        ("file:///", "an absolute directory"),
        ("/srv/store", "not the URL of a store .such as file:///srv"),
        ("s3://", "not the URL of a store"),
        ("http://bucket", "not the URL of a store"),
        ("s3://key:secret@bucket", "a store takes no user"),
        ("s3://bucket/a?x=1", "a store takes no user"),
        ("s3://bucket/../other", "a path without"),
        ("s3://bucket/a b", "a character that no URL has"),
    ],
)
def test_an_unusable_url_is_told_with_its_field(tmp_path: Path, url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=rf"VMRUNNER_STORE__URL: store.url: .*{why}"):
        settings_of(tmp_path, url=url)


def test_an_endpoint_is_a_url(tmp_path: Path) -> None:
    assert settings_of(tmp_path, endpoint="http://127.0.0.1:9000/").store.endpoint[-5:] == ":9000"
    with pytest.raises(ConfigError, match=r"store.endpoint: .*such as https://"):
        settings_of(tmp_path, endpoint="s3.example.org")
