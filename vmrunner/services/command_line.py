"""The command that submits a build once more, for who copies it into a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Final

from vmrunner.lib import units
from vmrunner.model import BuildSpec, Network

#: Who pastes them has a terminal that obeys them.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def command_of(spec: BuildSpec) -> str:
    """Return `vmrunner run …` for a build. Values of secrets come from the environment of who runs
    it, and a step's own variables and timeout are not in it."""
    words = ["vmrunner", "run", *_options(spec)]
    steps = spec.steps
    if len(steps) == 1 and steps[0].run is None:
        words += ["--", *steps[0].argv]
    else:
        for step in steps:
            words += ["--step", step.run if step.run is not None else shlex.join(step.argv)]
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """A word for bash or zsh, with control characters spelled out."""
    if _CONTROL.search(word) is None:
        return shlex.quote(word)
    text = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + _CONTROL.sub(_spelled, text) + "'"


def _spelled(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _options(spec: BuildSpec) -> Iterator[str]:
    values: dict[str, str | None] = {
        "--name": spec.name,
        "--provider": spec.provider,
        "--image": spec.image,
        "--container": spec.container,
        "--source": spec.source,
        "--timeout": units.exact(spec.timeout),
        "--network": None if spec.network is Network.OPEN else str(spec.network),
        "--cpus": str(spec.cpus) if spec.cpus else None,
        "--memory": units.exact_size(spec.memory) if spec.memory else None,
        "--disk": units.exact_size(spec.disk) if spec.disk else None,
    }
    for name, value in values.items():
        if value:
            yield from (name, value)
    flags = {"--docker": spec.docker, "--privileged": spec.privileged, "--spot": spec.spot}
    yield from (name for name, is_set in flags.items() if is_set)
    for key, value in sorted(spec.labels.items()):
        yield from ("--label", f"{key}={value}")
    for key, value in sorted(spec.env.items()):
        yield from ("--env", f"{key}={value}")
    for name in spec.secrets:
        yield from ("--secret", name)
    for rule in spec.artifacts:
        yield from ("--artifact", rule.glob)
