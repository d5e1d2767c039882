"""Bootstrap data that GARM gives for a runner, and the build that it becomes."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vmrunner.config.build_request import BuildRequest
from vmrunner.config.fault_words import in_words
from vmrunner.config.forges import RUNNER_IMAGE, RunnerFields
from vmrunner.config.validation_errors import spoken
from vmrunner.errors import ConfigError
from vmrunner.lib import units
from vmrunner.model import Step

if TYPE_CHECKING:
    from vmrunner.config.forges import GarmSettings

#: Labels of a runner's build.
CONTROLLER: Final = "garm.controller"
POOL: Final = "garm.pool"
NAME: Final = "garm.name"
#: What GARM itself puts into a pool's extra specs: scripts for a whole VM with systemd.
_NOT_OURS: Final = frozenset({"runner_install_template", "pre_install_scripts", "extra_context"})
_DEFAULT: Final = ("", "default")


class Bootstrap(BaseModel):
    """The part of GARM's BootstrapInstance that counts here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str = Field(min_length=1)
    pool_id: str = ""
    repo_url: str = ""
    callback_url: str = Field(default="", alias="callback-url")
    metadata_url: str = Field(default="", alias="metadata-url")
    instance_token: str = Field(min_length=1, alias="instance-token")
    runner_group: str = Field(default="", alias="github-runner-group")
    os_type: str = "linux"
    flavor: str = ""
    image: str = ""
    labels: list[str] | None = None
    jit_config_enabled: bool = False
    extra_specs: dict[str, Any] | None = None


def read(data: bytes) -> Bootstrap:
    """The document on stdin. Raises ConfigError, which repeats nothing of it: a token is in
    it."""
    try:
        return Bootstrap.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(("stdin", *map(str, first["loc"])))
        raise ConfigError(
            f"{where}: {in_words(first)[0]}", hint="GARM writes that: see its version"
        ) from None


def request(
    bootstrap: Bootstrap, settings: GarmSettings, controller: str, pool: str, number: int
) -> BuildRequest:
    """Return the build of a runner, the one after `number` others of its name. Raises ConfigError
    for a flavor that is not configured, or another system than Linux."""
    if bootstrap.os_type != "linux":
        raise ConfigError(f"os_type: {bootstrap.os_type!r} is not to be had", hint="linux")
    fields = shape(settings, bootstrap.flavor, bootstrap.extra_specs)
    values = fields.values()
    if bootstrap.image not in _DEFAULT:
        values["container"] = bootstrap.image
    container = str(values.get("container") or RUNNER_IMAGE)
    login: dict[str, Any] = settings.login(container)
    values |= {
        **login,
        "container": container,
        "secrets": {
            **login.get("secrets", {}),
            "GARM_INSTANCE_TOKEN": bootstrap.instance_token.encode(),
        },
        "env": {"RUNNER_ALLOW_RUNASROOT": "1", **_environment(bootstrap), **fields.env},
        "labels": {**fields.labels, CONTROLLER: controller, POOL: pool, NAME: bootstrap.name},
    }
    return BuildRequest(
        **values,
        steps=(Step(run=settings.command or script(), name="runner"),),
        idempotency_key=f"garm:{controller}:{bootstrap.name}:{number}",
    )


def shape(settings: GarmSettings, flavor: str, extra: Mapping[str, Any] | None) -> RunnerFields:
    """Return the options of a pool's builds: what it says itself, its flavor, and what holds for
    all. Raises ConfigError."""
    own = {name: value for name, value in (extra or {}).items() if name not in _NOT_OURS}
    try:
        fields = RunnerFields.model_validate(own)
    except ValidationError as error:
        raise spoken(error, RunnerFields.model_fields) from None
    if flavor not in _DEFAULT and flavor not in settings.flavors:
        raise ConfigError(
            f"flavor: {flavor!r} is not in garm.flavors",
            hint=units.did_you_mean(flavor, [*settings.flavors, "default"]),
        )
    if flavor in settings.flavors:
        fields = fields.over(settings.flavors[flavor])
    return fields.over(settings.build)


def extra_specs(text: str) -> dict[str, Any] | None:
    """Return a pool's extra specs, as GARM has them in an environment: JSON in base64. Raises
    ConfigError."""
    try:
        found = json.loads(base64.b64decode(text, validate=True) or b"null")
    except (RecursionError, ValueError):
        found = text
    if found is not None and not isinstance(found, dict):
        raise ConfigError("extra_specs: not a table", hint='such as {"ttl": "2h"}')
    return found


def _environment(bootstrap: Bootstrap) -> dict[str, str]:
    return {
        "GARM_METADATA_URL": bootstrap.metadata_url.rstrip("/"),
        "GARM_CALLBACK_URL": bootstrap.callback_url.rstrip("/"),
        "GARM_REPO_URL": bootstrap.repo_url,
        "GARM_RUNNER_NAME": bootstrap.name,
        "GARM_RUNNER_LABELS": ",".join(bootstrap.labels or ()),
        "GARM_RUNNER_GROUP": bootstrap.runner_group,
        "GARM_JIT": "1" if bootstrap.jit_config_enabled else "0",
    }


def script() -> str:
    """The script that starts GitHub's runner with a configuration from GARM."""
    return resources.files(__package__).joinpath("runner.sh").read_text()
