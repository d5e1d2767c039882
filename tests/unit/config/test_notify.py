"""The tables `[[notify]]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vmrunner.config.notify import NotifySettings
from vmrunner.config.settings import Settings
from vmrunner.config.sources import load
from vmrunner.errors import ConfigError
from vmrunner.model import NotifyEvent

SAID = {"name": "chat", "url": "https://h.example/x", "secret": "HOOK_KEY"}


def notify(**changes: Any) -> NotifySettings:
    return NotifySettings.model_validate({**SAID, **changes})


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://hooks.Example.org:8443/x", "hooks-example-org"),
        ("http://127.0.0.1/x", "at-127-0-0-1"),
        (f"https://{'a' * 50}.example/x", "a" * 40),
    ],
)
def test_one_without_a_name_is_called_by_its_host(url: str, name: str) -> None:
    assert NotifySettings.model_validate({"url": url, "secret": "K"}).name == name


def test_a_url_that_is_none_is_told_without_a_name() -> None:
    for url in ("http://[::1", "nonsense"):
        with pytest.raises(ValidationError, match=r"url"):
            NotifySettings.model_validate({"url": url, "secret": "K"})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "Chat!"}, "not a name"),
        ({"url": "ftp://h/x"}, "not a URL"),
        ({"url": "https:///x"}, "not a URL"),
        ({"url": "https://h/\n"}, "not a URL"),
        ({"url": "https://me:pw@h/x"}, "it holds a password"),
        ({"secret": ""}, "at least 1 character"),
        ({"secret": "@relative"}, "not an absolute path"),
        ({"secret": "the secret itself!"}, "not written here"),
        ({"events": ["build.begun"]}, "build.ended"),
        ({"events": ["alarm.survivor"], "match": {"a": "b"}}, "alarm.survivor is of none"),
    ],
)
def test_what_cannot_be_is_told_with_its_fix(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        notify(**changes)


def test_a_password_in_a_url_is_refused_without_it(tmp_path: Path) -> None:
    file = tmp_path / "vmrunner.toml"
    file.write_text('[[notify]]\nurl = "https://me:pass-word@h.example/x"\nsecret = "K"\n')
    with pytest.raises(ConfigError, match="it holds a password") as caught:
        load(environ={"VMRUNNER_CONFIG": str(file)}, start=tmp_path)
    assert "https://***@h.example/x" in str(caught.value)
    assert "pass-word" not in str(caught.value)


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="two have the name 'chat'"):
        Settings.model_validate({"notify": [SAID, SAID]})


def test_labels_choose_builds_and_no_alarm() -> None:
    assert notify().wanted == set(NotifyEvent)
    assert notify(match={"team": "core"}).wanted == {NotifyEvent.BUILD_ENDED}
    assert notify(events=["alarm.survivor"]).wanted == {NotifyEvent.SURVIVOR}


def test_the_secret_is_a_variables_or_a_private_files(tmp_path: Path) -> None:
    assert notify().key({"HOOK_KEY": "k"}) == b"k"
    file = tmp_path / "secret"
    file.write_text(" k2\n")
    file.chmod(0o600)
    assert notify(secret=f"@{file}").key() == b"k2"


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [(None, 0, "cannot be read"), ("k", 0o644, "may be read by others"), ("\n", 0o600, "is empty")],
)
def test_a_secret_file_that_cannot_serve_is_told(
    tmp_path: Path, content: str | None, mode: int, why: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    with pytest.raises(ConfigError, match=why) as caught:
        notify(secret=f"@{file}").key()
    assert caught.value.hint
