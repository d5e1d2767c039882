"""The tables `[github]`, `[gitlab]` and `[garm]` of the configuration: jobs of a forge, a VM
each."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from vmrunner.config import named_secret, registry_auth
from vmrunner.config.build_request import BuildFields
from vmrunner.lib import units
from vmrunner.lib.config_section import Seconds, Section

if TYPE_CHECKING:
    from vmrunner.config.settings import Settings

RUNNER_IMAGE: Final = "ghcr.io/actions/actions-runner:latest"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,44}")
_PART: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]+")
_LABEL: Final = re.compile(r"[^\s,](?:[^\n,]{0,254}[^\s,])?")
_REGISTRY: Final = (
    "Logins for private images, a Docker configuration: a variable's name, or @ and a file's path."
)
#: The last: what a runner registers with is of one use.
_NOT_OF_A_RUNNER: Final = (
    *("source", "secrets", "artifacts", "caches", "registry_secret"),
    "retry_on_loss",
)
#: A job's VM has no steps of ours, and lives for as long as its job may take, or `ttl`.
_NOT_OF_A_JOB: Final = ("timeout", "keep_on_failure", "bootstrap")


class RunnerFields(BuildFields):
    """The build that a runner is, as a job file says it. Source, artifacts and caches are its
    workflow's."""

    secrets: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()
    caches: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _plain(self) -> RunnerFields:
        foreign = [name for name in _NOT_OF_A_RUNNER if getattr(self, name)]
        if foreign:
            raise ValueError(f"a runner has no {foreign[0]}; leave it out")
        return self

    def values(self) -> dict[str, object]:
        """The values that are set, as fields of a request."""
        return {
            name: value
            for name in BuildFields.model_fields
            if name not in _NOT_OF_A_RUNNER and (value := getattr(self, name)) is not None
        }


class ScaleSetSettings(Section):
    """A runner scale set."""

    name: str = Field(description="As `runs-on` of a workflow has it.")
    labels: list[str] = Field(default_factory=list, description="Default: its name.")
    runner_group: str = Field(default="default", min_length=1)
    max_runners: int = Field(default=10, ge=1, description="VMs at once.")
    idle: Seconds = Field(
        default=600.0, description="A runner that no job wants any more leaves after this."
    )
    command: str = Field(
        default="cd /home/runner && exec ./run.sh",
        min_length=1,
        description="Starts the runner, which finds its configuration in its environment.",
    )
    build: RunnerFields = Field(
        default=RunnerFields(), description="Options of its builds, as in a job file."
    )

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("not a name; at most 45 letters, digits, . _ and -, such as fast")
        return value

    @field_validator("labels")
    @classmethod
    def _of_workflows(cls, value: list[str]) -> list[str]:
        for label in value:
            if not _LABEL.fullmatch(label) or not label.isprintable():
                raise ValueError(f"{label[:40]!r} is no label; such as gpu")
        return value


@dataclass(frozen=True, slots=True)
class ForgeTarget:
    """A repository, an organisation or an enterprise at GitHub."""

    url: str
    api: str  # base of the REST API
    path: str  # below it: orgs/NAME, repos/OWNER/NAME, enterprises/NAME

    @property
    def word(self) -> str:
        """Return it without the scheme, for labels and keys."""
        return self.url.partition("://")[2]


def _written(value: object) -> object:
    """Return a number as text: a file may have it without quotes."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class GithubSettings(Section):
    """Runner scale sets at GitHub, for `vmrunner github serve`."""

    url: str = Field(default="", description="Of a repository, organisation or enterprise.")
    token: str = Field(
        default="", description="A personal token: a variable's name, or @ and a file's path."
    )
    app_id: Annotated[str, BeforeValidator(_written)] = Field(
        default="", description="Of a GitHub App, or its client id."
    )
    installation_id: int = Field(default=0, ge=0, description="Of that App.")
    private_key: str = Field(
        default="", description="Of that App, PEM: a variable's name, or @ and a file's path."
    )
    registry: str = Field(default="", description=_REGISTRY)
    scale_sets: list[ScaleSetSettings] = Field(default_factory=list)

    @field_validator("url")
    @classmethod
    def _place(cls, value: str) -> str:
        return target(value).url if value else value

    @field_validator("token", "private_key", "registry")
    @classmethod
    def _named(cls, value: str) -> str:
        return named_secret.check(value) if value else value

    @field_validator("scale_sets")
    @classmethod
    def _distinct(cls, value: list[ScaleSetSettings]) -> list[ScaleSetSettings]:
        names = [scale_set.name.lower() for scale_set in value]  # as GitHub compares them
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two have the name {twice!r}; give each its own")
        return value

    @model_validator(mode="after")
    def _proved(self) -> GithubSettings:
        app = (self.app_id, self.installation_id, self.private_key)
        if any(app) and not all(app):
            raise ValueError("an App has app_id, installation_id and private_key; give all three")
        if any(app) and self.token:
            raise ValueError("token and an App are two identities; give one")
        if self.scale_sets and not (self.url and (self.token or all(app))):
            raise ValueError("scale_sets need url, and token or app_id with its private_key")
        return self

    def token_text(self, environ: Mapping[str, str] = os.environ) -> str:
        """Read the personal token. Raises ConfigError."""
        return named_secret.read(self.token, "github.token", environ).decode()

    def key_text(self, environ: Mapping[str, str] = os.environ) -> str:
        """Read the App's private key. Raises ConfigError."""
        return named_secret.read(self.private_key, "github.private_key", environ).decode()

    def login(self, image: str) -> dict[str, object]:
        """Login for a runner's image, as options of its build. Raises ConfigError."""
        return _login(image, self.registry, "github.registry")


class GarmSettings(Section):
    """Runners of GARM, for `vmrunner garm`."""

    command: str = Field(
        default="", description="Starts the runner; default: for GitHub, in /home/runner."
    )
    build: RunnerFields = Field(
        default=RunnerFields(), description="Options of its builds, as in a job file."
    )
    flavors: dict[str, RunnerFields] = Field(
        default_factory=dict, description="The same by the pool's flavor, before those."
    )
    registry: str = Field(default="", description=_REGISTRY)

    @field_validator("registry")
    @classmethod
    def _named(cls, value: str) -> str:
        return named_secret.check(value) if value else value

    def login(self, image: str) -> dict[str, object]:
        """Login for a runner's image, as options of its build. Raises ConfigError."""
        return _login(image, self.registry, "garm.registry")


class GitlabSettings(Section):
    """Jobs of GitLab, for `vmrunner gitlab`."""

    build: RunnerFields = Field(
        default=RunnerFields(),
        description="Options of its sandboxes. Its container: of jobs that name no image.",
    )

    @field_validator("build")
    @classmethod
    def _of_a_sandbox(cls, value: RunnerFields) -> RunnerFields:
        if foreign := [name for name in _NOT_OF_A_JOB if getattr(value, name)]:
            raise ValueError(f"a job's VM has no {foreign[0]}; leave it out")
        return value


def gitlab_of(settings: Settings) -> GitlabSettings:
    """Return the table `[gitlab]` of a configuration."""
    found = settings.gitlab
    return found if isinstance(found, GitlabSettings) else GitlabSettings()


def github_of(settings: Settings) -> GithubSettings:
    """Return the table `[github]` of a configuration."""
    found = settings.github
    return found if isinstance(found, GithubSettings) else GithubSettings()


def garm_of(settings: Settings) -> GarmSettings:
    """Return the table `[garm]` of a configuration."""
    found = settings.garm
    return found if isinstance(found, GarmSettings) else GarmSettings()


def _login(image: str, secret: str, field: str) -> dict[str, object]:
    return registry_auth.login(image, field, named_secret.read(secret, field)) if secret else {}


def target(url: str) -> ForgeTarget:
    """Raises ValueError for what is no place of runners."""
    parts = urlsplit(url)
    words = parts.path.strip("/").split("/")
    host = (parts.hostname or "").lower()
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or parts.query:
        raise ValueError("not a URL; such as https://github.com/acme")
    if parts.scheme == "http" and not units.is_loopback(host):
        raise ValueError("tokens would cross the network in the clear; use https://")
    if not all(_PART.fullmatch(word) for word in words) or len(words) > 2:
        raise ValueError("not a repository, an organisation or enterprises/NAME")
    place = parts.netloc.lower().removeprefix("www.")
    if len(words) == 1:
        path = f"orgs/{words[0]}"
    elif words[0].lower() == "enterprises":
        path = f"enterprises/{words[1]}"
    else:
        path = "repos/" + "/".join(words)
    hosted = host.removeprefix("www.") == "github.com" or host.endswith(".ghe.com")
    api = f"https://api.{place}" if hosted else f"{parts.scheme}://{place}/api/v3"
    return ForgeTarget(url=f"{parts.scheme}://{place}/{'/'.join(words)}", api=api, path=path)
