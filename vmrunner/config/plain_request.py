"""Requests whose values are plainly right: they need no pydantic, whose import takes longer than
all else that a check of them does. Whatever is in doubt is left to `BuildRequest`, which has the
words for what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from vmrunner.config import cache_checks, field_checks, network_policy
from vmrunner.errors import ConfigError
from vmrunner.lib import units
from vmrunner.model import RUNTIMES

if TYPE_CHECKING:
    from vmrunner.config.build_request import BuildRequest

Reader = Callable[[Any, str], Any]


def _sized(value: object, field: str, *, least: int) -> int:
    return field_checks.at_least(units.size(value, field), field, least)


def _container(value: object, field: str) -> str:
    return field_checks.container(field_checks.text(value, field), field)


_RUNTIME: Final = partial(field_checks.choice, noun="runtime", choices=RUNTIMES)
#: Readers of the fields of `BuildRequest`, by their names.
READERS: Final[Mapping[str, Reader]] = {
    "container": _container,
    "container_runtime": _RUNTIME,
    **dict.fromkeys(("provider", "image", "registry_secret", "source"), field_checks.text),
    **dict.fromkeys(
        ("bootstrap", "docker", "privileged", "spot", "retry_on_loss"), field_checks.flag
    ),
    "env": field_checks.environment_table,
    "secrets": field_checks.secret_values,
    "artifacts": field_checks.artifact_rules,
    "caches": cache_checks.cache_rules,
    "labels": field_checks.label_table,
    **dict.fromkeys(
        ("timeout", "ttl", "queue_timeout", "keep_on_failure", "keep_logs"), units.duration
    ),
    "network": network_policy.policy,
    "cpus": partial(field_checks.whole, least=1),
    "memory": partial(_sized, least=field_checks.LEAST_MEMORY),
    "disk": partial(_sized, least=field_checks.LEAST_DISK),
    "priority": field_checks.whole,
    "steps": field_checks.steps,
    "name": field_checks.build_name,
    "idempotency_key": field_checks.idempotency_key,
}
#: What a field is that was not said, where that is not None.
DEFAULTS: Final[Mapping[str, Any]] = {
    "env": {}, "secrets": {}, "labels": {}, "artifacts": (), "caches": (),
}  # fmt: skip


class PlainRequest:
    """A request of checked values, to be read as `BuildRequest` is."""

    is_sandbox: Final = False
    locations: Mapping[str, str] = {}
    host_uses: tuple[str, ...] = ()
    faults: tuple[ConfigError, ...] = ()
    unread: frozenset[str] = frozenset()

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.__dict__.update(values)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._values.items())

    def model_copy(self, *, update: Mapping[str, Any]) -> BuildRequest:
        """The same with other values, which are not checked."""
        return cast("BuildRequest", PlainRequest({**self._values, **update}))


def request(values: Mapping[str, Any]) -> BuildRequest:
    """The request of these values by field; None is "not said". Raises ConfigError."""
    try:
        found = {
            name: read(values[name], name.replace("_", "-"))
            for name, read in READERS.items()
            if values.get(name) is not None
        }
    except ConfigError:
        found = {}
    if found.keys() != {name for name, value in values.items() if value is not None}:
        from vmrunner.config.build_request import BuildRequest

        return BuildRequest(**values)
    unsaid = dict.fromkeys(READERS)
    return cast("BuildRequest", PlainRequest({**unsaid, **DEFAULTS, **found}))


def unit(name: str) -> str:
    """The unit of the number in this field: "seconds", "bytes" or ""."""
    read = READERS.get(name)
    if read is units.duration:
        return "seconds"
    return "bytes" if getattr(read, "func", None) is _sized else ""
