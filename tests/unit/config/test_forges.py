"""The tables `[github]` and `[garm]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vmrunner.config import forges, sources
from vmrunner.config.settings import Settings
from vmrunner.errors import ConfigError

APP = {"app_id": "Iv23", "installation_id": 7, "private_key": "@/etc/x.pem"}
ORG = {"url": "https://github.com/acme", "token": "GITHUB_TOKEN"}


@pytest.mark.parametrize(
    ("url", "api", "path"),
    [
        ("https://github.com/acme/", "https://api.github.com", "orgs/acme"),
        ("https://www.github.com/acme", "https://api.github.com", "orgs/acme"),
        ("https://github.com/acme/app", "https://api.github.com", "repos/acme/app"),
        ("https://github.com/enterprises/big", "https://api.github.com", "enterprises/big"),
        ("https://big.ghe.com/acme", "https://api.big.ghe.com", "orgs/acme"),
        ("https://git.example:8443/acme", "https://git.example:8443/api/v3", "orgs/acme"),
        ("http://127.0.0.1:80/acme", "http://127.0.0.1:80/api/v3", "orgs/acme"),
    ],
)
def test_a_place_has_its_api(url: str, api: str, path: str) -> None:
    place = forges.target(url)
    assert (place.api, place.path) == (api, path)
    assert "://" not in place.word


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"url": "github.com/acme"}, "not a URL"),
        ({"url": "https://me:pw@github.com/acme"}, "not a URL"),
        ({"url": "http://github.com/acme"}, "in the clear"),
        ({"url": "https://github.com/"}, "not a repository"),
        ({"url": "https://github.com/a/b/c"}, "not a repository"),
        ({"token": "ghp_is the token"}, "not written here"),
        ({**ORG, **APP}, "two identities"),
        ({"url": ORG["url"], "app_id": "Iv23"}, "give all three"),
        ({"scale_sets": [{"name": "fast"}]}, "need url, and token"),
        ({**ORG, "scale_sets": [{"name": "fast"}] * 2}, "two have the name"),
        ({**ORG, "scale_sets": [{"name": "fast"}, {"name": "FAST"}]}, "two have the name"),
        ({**ORG, "scale_sets": [{"name": "a b"}]}, "not a name"),
        ({**ORG, "scale_sets": [{"name": "a", "labels": ["x", ""]}]}, "no label"),
        ({**ORG, "scale_sets": [{"name": "a", "labels": ["x,y"]}]}, "no label"),
        ({**ORG, "scale_sets": [{"name": "a", "labels": ["x "]}]}, "no label"),
        ({"url": "https://github.com/../acme"}, "not a repository"),
        ({**ORG, "scale_sets": [{"name": "a", "max_runners": 0}]}, "greater than or equal to 1"),
        (
            {**ORG, "scale_sets": [{"name": "a", "build": {"secrets": ["X"]}}]},
            "a runner has no secrets",
        ),
        (
            {**ORG, "scale_sets": [{"name": "a", "build": {"source": "."}}]},
            "a runner has no source",
        ),
        ({**ORG, "scale_sets": [{"name": "a", "build": {"caches": ["x"]}}]}, "no caches"),
        ({**ORG, "scale_sets": [{"name": "a", "build": {"nonsense": 1}}]}, "nonsense"),
        (
            {**ORG, "scale_sets": [{"name": "a", "build": {"retry_on_loss": True}}]},
            "a runner has no retry_on_loss",
        ),
    ],
)
def test_what_cannot_be_configured_is_told(values: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Settings.model_validate({"github": values})


def test_an_apps_number_needs_no_quotes() -> None:
    values = {"url": ORG["url"], **APP, "app_id": 4711}
    assert forges.github_of(Settings.model_validate({"github": values})).app_id == "4711"


def test_a_runners_build_is_said_as_in_a_job_file() -> None:
    build = {"ttl": "2h", "memory": "8GiB", "labels": {"team": "core"}}
    values = {**ORG, "scale_sets": [{"name": "fast", "build": build}]}
    settings = Settings.model_validate({"github": values})
    found = forges.github_of(settings).scale_sets[0].build
    assert found.values() == {
        "ttl": 7200.0,
        "memory": 8 << 30,
        "labels": {"team": "core"},
        "env": {},
    }


def test_a_token_that_was_written_there_is_not_repeated(tmp_path: Path) -> None:
    """As whoever makes that mistake has it in the log of a service then."""
    for token, app in (("ghp_aBc", ""), ("github-aBc", ""), ("ghp_aBc", "7")):
        environ = {"VMRUNNER_GITHUB__TOKEN": token, "VMRUNNER_GITHUB__APP_ID": app}
        values = {name: value for name, value in environ.items() if value}
        with pytest.raises(ConfigError, match="github") as caught:
            forges.github_of(sources.load(environ=values, start=tmp_path).settings).token_text({})
        assert "aBc" not in str(caught.value)


@pytest.mark.parametrize("name", ["timeout", "keep_on_failure"])
def test_what_no_job_has_is_told_before_one_comes(name: str) -> None:
    with pytest.raises(ValidationError, match=f"a job's VM has no {name}"):
        Settings.model_validate({"gitlab": {"build": {name: "1h"}}})
