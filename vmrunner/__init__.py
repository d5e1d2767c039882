"""One fresh virtual machine per build, nothing left behind.

import vmrunner
build = vmrunner.run("make test", source=".", artifacts=["dist/*"], on_log=print)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vmrunner.aio import AsyncSandbox
    from vmrunner.api.build import Build
    from vmrunner.api.errors import BuildCancelled, BuildError, BuildFailed, BuildLost, BuildTimeout
    from vmrunner.api.runner import Runner, run
    from vmrunner.api.sandbox import CommandFailed, CommandResult, Sandbox
    from vmrunner.config.settings import Settings
    from vmrunner.errors import (
        ConfigError,
        Conflict,
        NotFinished,
        NotFound,
        ProviderError,
        SandboxOver,
        VmrunnerError,
    )
    from vmrunner.model import (
        ArtifactRule,
        BuildState,
        CacheRule,
        LogLine,
        Network,
        Reason,
        Result,
        Step,
    )

__version__: Final = "0.1.0"

__all__ = [
    "ArtifactRule",
    "AsyncSandbox",
    "Build",
    "BuildCancelled",
    "BuildError",
    "BuildFailed",
    "BuildLost",
    "BuildState",
    "BuildTimeout",
    "CacheRule",
    "CommandFailed",
    "CommandResult",
    "ConfigError",
    "Conflict",
    "LogLine",
    "Network",
    "NotFinished",
    "NotFound",
    "ProviderError",
    "Reason",
    "Result",
    "Runner",
    "Sandbox",
    "SandboxOver",
    "Settings",
    "Step",
    "VmrunnerError",
    "run",
]

_MODEL: Final = (
    "ArtifactRule",
    "BuildState",
    "CacheRule",
    "LogLine",
    "Network",
    "Reason",
    "Result",
    "Step",
)
_BUILD_ERRORS: Final = ("BuildCancelled", "BuildError", "BuildFailed", "BuildLost", "BuildTimeout")
_HOME: Final = {
    "run": "api.runner",
    "Runner": "api.runner",
    "AsyncSandbox": "aio",
    "Build": "api.build",
    **dict.fromkeys(("CommandFailed", "CommandResult", "Sandbox"), "api.sandbox"),
    "Settings": "config.settings",
    **dict.fromkeys(_MODEL, "model"),
    **dict.fromkeys(_BUILD_ERRORS, "api.errors"),
}


def __getattr__(name: str) -> Any:
    """Each name is loaded when it is first used: `vmrunner --version` needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    """The public names, for who looks for them with Tab."""
    return [*__all__, "__version__"]
