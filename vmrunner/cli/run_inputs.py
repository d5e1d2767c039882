"""Inputs of `run` beside plain options: a job of a file, files of variables, places for what comes
back."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vmrunner.cli import output
from vmrunner.errors import ConfigError

if TYPE_CHECKING:
    from vmrunner.config.build_request import BuildRequest
    from vmrunner.model import BuildSpec, Step
    from vmrunner.services.host_access import HostAccess
    from vmrunner.services.sources import SourceFile

SHOWN_FILES: Final = 50  # of a source, by name, to people
NAMED_FILES: Final = 10_000  # and to programs


def steps(command: Sequence[str], lines: Sequence[str]) -> tuple[Step, ...] | None:
    """The command after `--`, or the shell lines of `--step`; None when there is neither."""
    from vmrunner.model import Step
    from vmrunner.services import requests

    if command and lines:
        raise ConfigError(
            "step: there is a command after -- too", hint="give steps, or one command"
        )
    return requests.command(command) or tuple(Step(run=line) for line in lines) or None


def env(pairs: Sequence[str], files: Sequence[Path]) -> dict[str, str]:
    """`-e` is stronger than any `--env-file`, and a later one than an earlier."""
    from vmrunner.config import env_file
    from vmrunner.lib import units

    found: dict[str, str] = {}
    for path in files:
        found |= env_file.read(path, os.environ)
    return found | dict(units.env(text) for text in pairs)


def request(
    options: Mapping[str, Any], steps: tuple[Step, ...] | None, *, whole: bool = True
) -> BuildRequest:
    """The request that the options of `run` make. It holds values: variables and files are read
    here. `whole`: it will be merged with a job's."""
    from vmrunner.config import cache_checks, plain_request
    from vmrunner.lib import units
    from vmrunner.services import secrets

    values = {name: options[name] for name in plain_request.READERS if name in options}
    values |= {
        "steps": steps,
        "env": env(options["env"] or (), options["env_file"] or ()),
        "secrets": secrets.read(options["secret"] or (), os.environ),
        "artifacts": options["artifact"] or (),
        "caches": [cache_checks.option(text) for text in options["cache"] or ()],
        "labels": dict(units.label(text) for text in options["label"] or ()),
    }
    if not whole:
        return plain_request.request(values)
    from vmrunner.config.build_request import BuildRequest

    return BuildRequest(**values)


def job_file(words: Sequence[str], file: Path | None, steps: object) -> Path | None:
    """The file that words before `--`, or nothing at all, are about: `-f`, else `vmrunner.yml`
    here."""
    if len(words) > 1 and file is None:
        raise _not_after_dashes(words)
    if len(words) > 1:
        raise ConfigError(f"job: {words[1]!r} is one too many", hint="one job, then -- and a CMD")
    if file is not None:
        return file
    if steps is None and (here := _job_file_here()):
        return here
    if words:
        raise _not_after_dashes(words)
    return None


def _not_after_dashes(words: Sequence[str]) -> ConfigError:
    """Return the error for a command that was written as a job's name is."""
    line = output.clean(shlex.join(words))
    job = f"; or -f FILE {words[0]} for a job" if len(words) == 1 else ""
    return ConfigError(
        f"command: {words[0]!r} is not after --",
        hint=f"vmrunner run -- {line}{' …' if len(words) == 1 else ''}{job}; a container's image "
        "is --container IMAGE",
    )


def _job_file_here() -> Path | None:
    from vmrunner.config import jobfile, trust

    here = Path(jobfile.NAME)
    if not here.is_file():
        return None
    if found := trust.doubt(here):
        raise ConfigError(f"{here}: not taken: {found.why}", hint=f"{found.fix}, or name it: -f")
    output.say(f"job file {here.absolute()}")
    return here


def with_job(
    request: BuildRequest, file: Path, name: str | None, allowed: HostAccess
) -> BuildRequest:
    """The request, and what the job of that name adds to it."""
    from vmrunner.config import jobfile
    from vmrunner.services import requests

    chosen = jobfile.choose(file, name)
    merged = request.over(requests.from_job(chosen, os.environ, request=request, allowed=allowed))
    if merged.name is None:
        output.warn(f"job {chosen.name!r} cannot be the build's name: it has none (--name)")
    return merged


def show_spec(spec: BuildSpec) -> None:
    """Show what would be submitted, as a table."""
    from dataclasses import asdict

    from vmrunner.config import cache_checks
    from vmrunner.lib import units

    shown = asdict(spec) | {"network": str(spec.network)}
    width = max(map(len, shown))
    for key, value in shown.items():
        if key == "steps":
            for number, step in enumerate(spec.steps, 1):
                more = [f"timeout {units.exact(float(step.timeout))}"] if step.timeout else []  # type: ignore[arg-type]
                more += [f"{name}={text}" for name, text in step.env.items()]
                line = step.run if step.run is not None else shlex.join(step.argv)
                parts = [f"{number}.", step.name and f"{step.name}:", line]
                text = " ".join(filter(None, parts)) + (f"  ({', '.join(more)})" if more else "")
                output.print_out(f"{key if number == 1 else '':<{width}}  {output.clean(text)}")
        elif key == "artifacts":
            rules = [f"{r.glob} (always)" if r.always else r.glob for r in spec.artifacts]
            if rules:
                output.print_out(f"{key:<{width}}  {output.clean(', '.join(rules))}")
        elif key == "caches":
            if spec.caches:
                output.print_out(f"{key:<{width}}  {output.clean(cache_checks.paths(spec.caches))}")
        elif value not in (None, "", (), {}):
            output.print_out(f"{key:<{width}}  {output.clean(_text(key, value))}")


def show_files(files: Sequence[SourceFile]) -> None:
    """Show how many files would go into the VM, and the first of them by name."""
    from vmrunner.lib.archive.files import ArchiveTotal

    total = ArchiveTotal(files=len(files), size=sum(file.size for file in files))
    output.print_out(f"\nSource: {total}")
    for file in sorted(files)[:SHOWN_FILES]:
        output.print_out(f"  {output.clean(file.path)}")
    if len(files) > SHOWN_FILES:
        output.print_out(f"  … and {len(files) - SHOWN_FILES:,} more (-o json)")


def files_document(files: Sequence[SourceFile]) -> dict[str, Any]:
    """The same for programs, with more of the names."""
    return {
        "count": len(files),
        "bytes": sum(file.size for file in files),
        "paths": [file.path for file in sorted(files)[:NAMED_FILES]],
    }


def _text(key: str, value: object) -> str:
    from vmrunner.config import plain_request
    from vmrunner.lib import units

    if isinstance(value, str):
        return value
    if isinstance(value, float | int) and (unit := plain_request.unit(key)):
        return units.exact(value) if unit == "seconds" else units.amount(int(value))
    if isinstance(value, Mapping):
        return shlex.join(f"{name}={text}" for name, text in value.items())
    return json.dumps(value, ensure_ascii=False)
