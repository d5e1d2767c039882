"""The job that GitLab Runner calls us for.

A job's author may set any variable, and so each `CUSTOM_ENV_…`. Which job it is, and how long it
may take, is read from the file with GitLab's own answer, where the runner gives one.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from vmrunner.errors import ConfigError
from vmrunner.lib.units import LABEL_CHARACTERS

_PREFIX: Final = "CUSTOM_ENV_"
_ANSWER: Final = "JOB_RESPONSE_FILE"
_NUMBER: Final = re.compile(r"[0-9]{1,20}", re.ASCII)
#: Of the job too: GitLab Runner removes the one, and the other is a directory that it removes.
_ITS_OWN: Final = (_ANSWER, "TMPDIR")


@dataclass(frozen=True, kw_only=True, slots=True)
class GitlabJob:
    """One job. `timeout`: seconds; None: GitLab does not say. `proof`: a text that no other job
    can tell before this one is there. `masked`: values that GitLab masks in its log. `logins`:
    Docker configurations for its image, the strongest first."""

    server: str
    id: str
    project: str = ""
    image: str = ""
    timeout: float | None = None
    proof: str = ""
    masked: tuple[str, ...] = ()
    logins: tuple[bytes, ...] = ()


def read(environ: Mapping[str, str]) -> GitlabJob:
    """Return the job that the environment tells of. Raises ConfigError when it tells of none."""

    def variable(name: str) -> str:
        return environ.get(_PREFIX + name, "")

    image = variable("CI_JOB_IMAGE")
    login = variable("DOCKER_AUTH_CONFIG").encode()
    own = (login,) if login else ()
    if path := environ.get(_ANSWER, ""):
        return _answered(path, image, own)
    server, job = _host(variable("CI_SERVER_URL")), variable("CI_JOB_ID")
    if not server or not _NUMBER.fullmatch(job):
        raise ConfigError(
            f"{_PREFIX}CI_JOB_ID: no job", hint="GitLab Runner calls this; docs/gitlab.md"
        )
    return GitlabJob(
        server=server,
        id=job,
        project=_label(variable("CI_PROJECT_PATH")),
        image=image,
        timeout=_seconds(variable("CI_JOB_TIMEOUT")),
        proof=_digest(variable("CI_JOB_TOKEN")),
        logins=own,
    )


def _answered(path: str, image: str, own: tuple[bytes, ...]) -> GitlabJob:
    """Return the job of GitLab's own answer. What is missing there is not taken from variables: a
    job's author could set them."""
    why = "not a job's answer"  # nothing of it is told: tokens are in it
    try:
        answer = json.loads(Path(path).read_bytes())
        repository = str(answer["git_info"]["repo_url"])
        found = GitlabJob(
            server=_host(repository),
            id=str(answer["id"]),
            project=_label(_path(repository)),
            image=image,
            timeout=_seconds((answer.get("runner_info") or {}).get("timeout")),
            proof=_digest(str(answer["token"] or "")),
            masked=_masked(answer),
            logins=(*own, _its_registry(answer)),
        )
        if found.server and found.proof and _NUMBER.fullmatch(found.id):
            return found
    except OSError as error:
        why = error.strerror or "unreadable"
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        pass
    raise ConfigError(f"{_ANSWER}: {path} cannot be read: {why}", hint="GitLab Runner writes it")


def hide(environ: MutableMapping[str, str]) -> None:
    """Take out of an environment what is the job's: an engine that is started here outlives it."""
    for name in list(environ):
        if name.startswith(_PREFIX) or name in _ITS_OWN:
            del environ[name]


def _host(url: str) -> str:
    """Return the host and port of a URL, without the token that may be in it."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()


def _path(url: str) -> str:
    return urlsplit(url).path.strip("/").removesuffix(".git")


def _label(text: str) -> str:
    """The part of it that a label can hold: no job is to fail for that."""
    return "".join(filter(str.isprintable, text))[:LABEL_CHARACTERS]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:32] if token else ""


def _masked(answer: Mapping[str, Any]) -> tuple[str, ...]:
    masked = [variable for variable in answer.get("variables") or () if variable.get("masked")]
    return tuple(sorted({str(variable.get("value") or "") for variable in masked} - {""}))


def _its_registry(answer: Mapping[str, Any]) -> bytes:
    """Return GitLab's logins for the job, to its own registry, as a Docker configuration."""
    given = [login for login in answer.get("credentials") or () if login.get("type") == "registry"]
    auths = {
        str(login["url"]): {"username": str(login["username"]), "password": str(login["password"])}
        for login in given
    }
    return json.dumps({"auths": auths}).encode()


def _seconds(value: object) -> float | None:
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if 0 < found < math.inf else None
