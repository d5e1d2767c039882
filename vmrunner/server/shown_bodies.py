"""Builds and sandboxes as they are shown, taken as requests for more of the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from vmrunner.errors import ConfigError
from vmrunner.model import BuildSpec, Limits
from vmrunner.services.requests import OF_STEPS

#: What tells a whole document from a request: no option has such a name.
_SIGNS: Final = frozenset({"id", "state", "created_at"})
#: What an answer has around its documents.
_ENVELOPE: Final = frozenset({"schema_version", "kind", "items"})
#: Options of a build, by the names of its document.
_OPTIONS: Final = {field.name for field in fields(BuildSpec)} - {"runtime"} | {"container_runtime"}
#: What is shown of a step that was looked at.
_OUTCOME: Final = frozenset({"started_at", "ended_at", "exit_code"})


def request_of(body: Mapping[str, Any], *, sandbox: bool) -> dict[str, Any]:
    """A body without what only the document of a build or sandbox has. Where it is no document it
    is as it was: a word that is no option is refused later, and never overlooked. Raises
    ConfigError for a sandbox where a build is asked for, and for several documents."""
    found = _alone(body)
    if found.keys() >= _SIGNS:
        found = {name: value for name, value in found.items() if name in _OPTIONS}
    if found.get("secrets") == []:  # their names; where there are some, their values are missing
        del found["secrets"]
    if isinstance(steps := found.get("steps"), list):
        found["steps"] = [_step(step) for step in steps]
    lives = found.pop("sandbox_ttl", None)
    if sandbox and isinstance(lives, int | float):
        for name in OF_STEPS:
            if name == "timeout" or not found.get(name):
                found.pop(name, None)
        if isinstance(whole := found.get("ttl"), int | float):
            found["max_ttl"] = max(lives, whole - Limits().booting)
        found["ttl"] = lives
    elif lives is not None:
        raise ConfigError("sandbox_ttl: this is a sandbox, no build", hint="POST /api/v1/sandboxes")
    return found


def _alone(body: Mapping[str, Any]) -> dict[str, Any]:
    """The document of an answer that has one; another body as it is."""
    if not body.keys() >= _ENVELOPE or not isinstance(shown := body.get("items"), list):
        return dict(body)
    if len(shown) != 1 or not isinstance(shown[0], dict):
        raise ConfigError(f"items: {len(shown)} documents, not one", hint="send one of them")
    return dict(shown[0])


def _step(step: Any) -> Any:
    """A step without its outcome, and without a name that only repeats its command."""
    if not isinstance(step, dict) or not step.keys() >= _OUTCOME:
        return step
    found = {name: value for name, value in step.items() if name not in _OUTCOME}
    argv = found.get("argv")
    words = argv if isinstance(argv, list) else []
    if found.get("name") in (found.get("run"), " ".join(map(str, words)) or None):
        del found["name"]
    return found
