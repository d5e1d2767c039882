"""The job that GitLab Runner calls us for.

A job's author may set any variable, and so each `CUSTOM_ENV_…`. Which job it is, and how long it
may take, is read from the file with GitLab's own answer, where the runner gives one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from vmrunner.errors import ConfigError
from vmrunner.lib.units import LABEL_CHARACTERS

_PREFIX: Final = "CUSTOM_ENV_"
_ANSWER: Final = "JOB_RESPONSE_FILE"
#: Of the job too: GitLab Runner removes the one, and the other is a directory that it removes.
_ITS_OWN: Final = (_ANSWER, "TMPDIR")


@dataclass(frozen=True, kw_only=True, slots=True)
class GitlabJob:
    """One job. `timeout`: seconds; None: GitLab does not say. `proof`: what nobody can tell before
    the job is there. `masked`: values that GitLab masks in its log."""

    server: str
    id: str
    project: str = ""
    image: str = ""
    timeout: float | None = None
    proof: str = ""
    masked: tuple[str, ...] = ()


def read(environ: Mapping[str, str]) -> GitlabJob:
    """Return the job that the environment tells of. Raises ConfigError when it tells of none."""

    def variable(name: str) -> str:
        return environ.get(_PREFIX + name, "")

    answer = _answer(environ.get(_ANSWER, ""))
    repository = str((answer.get("git_info") or {}).get("repo_url", ""))
    server = _host(repository) or _host(variable("CI_SERVER_URL"))
    job = str(answer.get("id") or variable("CI_JOB_ID"))
    if not server or not job.isdigit():
        raise ConfigError(
            f"{_PREFIX}CI_JOB_ID: no job", hint="GitLab Runner calls this; docs/gitlab.md"
        )
    return GitlabJob(
        server=server,
        id=job,
        project=_label(_path(repository) or variable("CI_PROJECT_PATH")),
        image=variable("CI_JOB_IMAGE"),
        timeout=_seconds((answer.get("runner_info") or {}).get("timeout"))
        or _seconds(variable("CI_JOB_TIMEOUT")),
        proof=_digest(str(answer.get("token") or variable("CI_JOB_TOKEN"))),
        masked=_masked(answer),
    )


def hide(environ: MutableMapping[str, str]) -> None:
    """Take out of an environment what is the job's: an engine that is started here outlives it."""
    for name in list(environ):
        if name.startswith(_PREFIX) or name in _ITS_OWN:
            del environ[name]


def _answer(path: str) -> dict[str, Any]:
    if not path:
        return {}
    try:
        found = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"JOB_RESPONSE_FILE: {path} cannot be read: {error}", hint="GitLab Runner writes it"
        ) from None
    return found if isinstance(found, dict) else {}


def _host(url: str) -> str:
    """Return the host and port of a URL, without the token that may be in it."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()


def _path(url: str) -> str:
    return urlsplit(url).path.strip("/").removesuffix(".git")


def _label(text: str) -> str:
    """Return what a label can hold of it: no job is to fail for that."""
    return "".join(filter(str.isprintable, text))[:LABEL_CHARACTERS]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:32] if token else ""


def _masked(answer: Mapping[str, Any]) -> tuple[str, ...]:
    said = [one for one in answer.get("variables") or () if one.get("masked")]
    return tuple(sorted({str(one.get("value") or "") for one in said} - {""}))


def _seconds(said: object) -> float | None:
    try:
        found = float(str(said))
    except ValueError:
        return None
    return found if found > 0 else None
