"""That a configuration was valid is remembered; nothing that changed goes unchecked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from vmrunner.config import known_settings, remembered, sources
from vmrunner.config.known_settings import KnownSettings
from vmrunner.config.sources import LoadedSettings
from vmrunner.errors import ConfigError

NAME = "0B6C0E14-3D0B-4F0C-9B4E-0F6F0D3C2A11"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "cache/vmrunner/valid"


def load(start: Path, **values: str) -> LoadedSettings:
    environ = {f"VMRUNNER_{name}": value for name, value in values.items()}
    return sources.load(environ=environ, start=start, lazily=True)


def is_known(loaded: LoadedSettings) -> bool:
    return isinstance(loaded.settings, KnownSettings)


def test_what_was_valid_is_known_with_the_same_values(cache: Path, tmp_path: Path) -> None:
    words = {
        "INSTALLATION": NAME,
        "SECRET_KEY": "a-secret",
        "DATABASE_URL": "postgresql://u:s3cret@h/x",
        "LIMITS__MAX_INSTANCES": "7",
    }
    first, second = load(tmp_path, **words), load(tmp_path, **words)
    assert (is_known(first), is_known(second)) == (False, True)
    for settings in (first.settings, second.settings):
        assert settings.installation == NAME.lower()
        assert settings.database.url == words["DATABASE_URL"]
        assert settings.secret_key is not None
        assert settings.secret_key.get_secret_value() == "a-secret"
        assert settings.limits.max_instances == 7
        assert settings.limits.max_ttl == 4 * 3600.0
        assert settings.limits.docker
        assert settings.providers["local"].max_instances is None
        assert settings.providers["local"].options()["accel"] == "auto"
        assert {name: table.kind for name, table in settings.providers.items()} == {"local": "qemu"}
        assert settings.provider() == "local"
    assert "a-secret" not in repr(second.settings.secret_key)
    (file,) = cache.iterdir()
    kept = file.read_text()
    assert not {word for word in words.values() if word != "7"} & {*kept.split('"')}
    assert "s3cret" not in kept
    assert file.stat().st_mode & 0o777 == 0o600


def test_limits_and_defaults_are_known_as_they_were_validated(cache: Path, tmp_path: Path) -> None:
    words = {
        "LIMITS__NETWORK": '{"allow": ["Example.org", "*.example.net:8443"]}',
        "LIMITS__PRIVILEGED": "true",
        "LIMITS__IMAGES": '["a", "b"]',
        "DEFAULTS__NETWORK": "none",
        "DEFAULTS__TIMEOUT": "90m",
        "DEFAULTS__CONTAINER": "python:3.13",
        "PROVIDERS__HERE__KIND": "qemu",
        "PROVIDERS__HERE__DISK": "8GiB",
        "DEFAULT_PROVIDER": "here",
    }
    first, second = load(tmp_path, **words).settings, load(tmp_path, **words).settings
    assert isinstance(second, KnownSettings)
    for name in ("limits", "defaults"):
        fields = type(getattr(first, name)).model_fields
        table = getattr(second, name)
        assert {key: getattr(table, key) for key in fields} == dict(getattr(first, name))
        assert "network" in vars(table)
    for name in ("local", "here"):
        assert second.provider_options(name) == first.provider_options(name)
        assert second.providers[name].boots_local_images
        assert second.providers[name].disk == first.providers[name].disk
    assert (second.provider(), second.provider("here")) == ("here", "here")
    with pytest.raises(ConfigError, match="'qemu' is the kind of several"):
        second.provider("qemu")
    assert "_valid" not in vars(second), "all that was known"


def test_an_option_that_decides_whose_it_is_is_not_kept(cache: Path, tmp_path: Path) -> None:
    words = {"PROVIDERS__LOCAL__KIND": "qemu", "PROVIDERS__LOCAL__DNS": "192.0.2.53"}
    load(tmp_path, **words)
    settings = load(tmp_path, **words).settings
    assert isinstance(settings, KnownSettings)
    assert settings.provider_options("local")["dns"] == "192.0.2.53"
    (file,) = cache.iterdir()
    assert "192.0.2.53" not in file.read_text()


@pytest.mark.parametrize(
    ("name", "value"),
    [("LIMITS__MAX_INSTANCES", "0"), ("LIMITS__MAX_INSTANCE", "7"), ("DEFAULT_PROVIDER", "x")],
)
def test_whatever_changed_is_validated(cache: Path, tmp_path: Path, name: str, value: str) -> None:
    load(tmp_path)
    assert is_known(load(tmp_path))
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"VMRUNNER_{name}"):
            load(tmp_path, **{name: value})
    assert len(list(cache.iterdir())) == 1


def test_a_changed_file_is_validated(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[limits]\nmax_instances = 7\n")
    load(tmp_path, CONFIG=str(file))
    assert is_known(load(tmp_path, CONFIG=str(file)))
    state = file.stat()
    file.write_text("[limits]\nmax_instances = 0\n")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(ConfigError, match="max_instances"):
        load(tmp_path, CONFIG=str(file))


def test_other_code_or_another_version_validates_anew(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tmp_path)
    monkeypatch.setattr(known_settings, "_version", lambda: "99")
    assert not is_known(load(tmp_path))
    monkeypatch.setattr(known_settings, "_code", list)
    assert not is_known(load(tmp_path))
    assert is_known(load(tmp_path))


@pytest.mark.parametrize("wrong", ["file", "directory", "link", "owner"])
def test_what_others_may_have_written_is_not_believed(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    load(tmp_path)
    (file,) = cache.iterdir()
    if wrong == "file":
        file.chmod(0o620)
    elif wrong == "directory":
        cache.chmod(0o770)
    elif wrong == "link":
        file.unlink()
        file.symlink_to("/dev/null")
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    assert not is_known(load(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"limits": {}}'])
def test_a_file_that_was_cut_short_is_written_anew(
    cache: Path, tmp_path: Path, content: str
) -> None:
    load(tmp_path)
    (file,) = cache.iterdir()
    file.write_text(content)
    assert not is_known(load(tmp_path))
    assert is_known(load(tmp_path))


def test_a_driver_of_others_is_asked_each_time(cache: Path, tmp_path: Path) -> None:
    values: dict[str, Any] = {"providers": {"x": {"kind": "elsewhere"}}}
    assert known_settings._name(values) is None
    assert known_settings._name({"providers": {"x": {"kind": "../qemu"}}}) is None
    assert not cache.exists()


def test_few_are_remembered(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_MOST", 3)
    for number in range(1, 7):
        load(tmp_path, LIMITS__MAX_INSTANCES=str(number))
    assert len(list(cache.iterdir())) == 3


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path, tmp_path: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(json.dumps("in the way"))
    assert not is_known(load(tmp_path))
    assert not is_known(load(tmp_path))
