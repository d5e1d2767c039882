"""First files of a project: a job that fits what lies there, and a configuration to begin from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

_READ: Final = 1 << 20  # bytes of a project's file that are looked at
JOB_FILE: Final = "vmrunner.yml"
SCHEMA_FILE: Final = "vmrunner.schema.json"
CONFIG_FILE: Final = "vmrunner.toml"


class Suggestion(NamedTuple):
    """A first job. `found`: the file that it was made of; `container`: "" for the default."""

    found: str
    container: str
    steps: tuple[str, ...]


def suggestion(directory: Path) -> Suggestion:
    """The job that fits what lies in a directory. A Makefile with a target `test` knows best."""
    for file, suggest in _SUGGESTIONS.items():
        path = directory / file
        if path.is_file() and (found := suggest(_text(path), directory)) is not None:
            return found
    return Suggestion("", "", ("echo it works; uname -a",))


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_READ).decode(errors="replace")


def _makefile(text: str, _: Path) -> Suggestion | None:
    targets = set(re.findall(r"^([A-Za-z][\w-]*)[ \t]*:(?!=)", text, re.MULTILINE))
    test = next((name for name in ("test", "check") if name in targets), None)
    return Suggestion("Makefile", "", (f"make {test}",)) if test else None


def _any_makefile(_text: str, _: Path) -> Suggestion:
    return Suggestion("Makefile", "", ("make",))


def _cargo(_text: str, directory: Path) -> Suggestion:
    locked = " --locked" if (directory / "Cargo.lock").is_file() else ""
    return Suggestion("Cargo.toml", "rust:1", (f"cargo test{locked}",))


def _go(_text: str, _: Path) -> Suggestion:
    return Suggestion("go.mod", "golang:1", ("go test ./...",))


def _node(text: str, directory: Path) -> Suggestion:
    locked = (directory / "package-lock.json").is_file()
    install = "npm ci" if locked else "npm install"
    try:
        scripts = json.loads(text).get("scripts", {})
        test = "npm test" if "test" in scripts else "npm run build"
    except (AttributeError, RecursionError, TypeError, ValueError):
        test = "npm test"
    return Suggestion("package.json", "node:22", (install, test))


def _python(text: str, _: Path) -> Suggestion:
    runner = "pytest" if "pytest" in text else "python -m unittest"
    packages = ". pytest" if runner == "pytest" else "."
    return Suggestion("pyproject.toml", "python:3.13", (f"pip install {packages}", runner))


def _cmake(_text: str, _: Path) -> Suggestion:
    steps = ("cmake -S . -B build", "cmake --build build", "ctest --test-dir build")
    return Suggestion("CMakeLists.txt", "", steps)


#: Files of a project, in the order in which they decide.
_SUGGESTIONS: Final[dict[str, Callable[[str, Path], Suggestion | None]]] = {
    "Makefile": _makefile,
    "Cargo.toml": _cargo,
    "go.mod": _go,
    "package.json": _node,
    "pyproject.toml": _python,
    "CMakeLists.txt": _cmake,
    "makefile": _any_makefile,
}


def job_file(suggested: Suggestion, *, schema: bool) -> str:
    """The text of a job file. `schema`: editors find its schema beside it."""
    lines = [f"# yaml-language-server: $schema={SCHEMA_FILE}"] if schema else []
    why = f"made for the {suggested.found} that lies here" if suggested.found else "a beginning"
    lines += [
        f"# Jobs of vmrunner, each in a fresh virtual machine: {why}.",
        "# Try it: vmrunner run -f vmrunner.yml test          see docs/cli.md",
        "version: 1",
        "jobs:",
        "  test:",
        "    source: .                    # what git does not ignore; it lies in /work",
    ]
    if suggested.container:
        lines.append(f"    container: {suggested.container}")
    else:
        lines.append("    # container: python:3.13     # default: debian:trixie, with compilers")
    lines += [
        "    timeout: 15m                 # of all steps; the VM dies soon after, whatever happens",
        "    # network: none              # default: open; or {allow: [packages.example.org]}",
        "    # cpus: 2",
        "    # memory: 4GiB",
        "    # env: {CI: 'true'}",
        "    # secrets: [TOKEN]           # run it with --secret TOKEN",
        "    # artifacts: [dist/*]        # what comes back; see --artifacts-to",
        "    steps:",
        *(f"      - {json.dumps(step) if _special(step) else step}" for step in suggested.steps),
    ]
    return "\n".join(lines) + "\n"


def _special(step: str) -> bool:
    """True for a step that YAML would not read as plain text."""
    return not re.fullmatch(r"[A-Za-z][\w ./;=-]*", step)


CONFIG_TEXT: Final = """\
# Configuration of vmrunner: docs/configuration.md. `vmrunner config show` tells what holds, and
# from where. Nothing needs to be said: each line that begins with `#` and a key shows a value that
# may be said.

default_provider = "local"       # where yours has others: for builds that name none

[providers.local]
kind = "qemu"                    # local VMs; clouds are ec2, gce, azure
#cpus = 2
#memory = "4GiB"

[defaults]                       # of builds that do not say it
#timeout = "30m"
#network = "open"                # or "none", or { allow = ["packages.example.org"] }

[limits]
#max_ttl = "4h"                  # the longest life of any VM
#max_instances = 20              # VMs at once
#privileged = false

# What follows may be said by a project's file only once you trust it (vmrunner config trust).

#[database]
#url = "postgresql://vmrunner@127.0.0.1/vmrunner"   # default: SQLite in your data directory

#[server]
#listen = "127.0.0.1:8470"       # the HTTP API and the page of `vmrunner serve`

#[[budgets]]
#usd_per_day = 20.0

#[[notify]]                      # webhooks: docs/webhooks.md
#url = "https://hooks.example.org/vmrunner"
#secret = "HOOK_SECRET"          # the name of a variable
"""
