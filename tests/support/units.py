"""A stand-in for a system that starts a build's container image itself, as one unit with our sshd
and supervisor in it: its box, its provider, and the supervisor that it would put there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.programs import INTERPRETER_LINE
from vmrunner.model import BuildSpec, NetworkPolicy, Shape, Trait
from vmrunner.providers.fake import Cloud, FakeProvider
from vmrunner.session import supervisor_calls

#: Takes a unit's job, and knows no container: of such words it says that it has none. What it does
#: with the job is the real supervisor's, which has a container of this very image beside it here.
SUPERVISOR = """{line}import json, os, sys
words = sys.argv[1:]
if words[0] == "prestart" or [w for w in words[3:] if words[0] == "unpack" and w != "--gzip"]:
    sys.exit("a unit has one container, and makes no other")
if words[0] == "start":
    job = json.load(sys.stdin)
    if not job.pop("unit", False) or {{"container", "docker", "privileged", "network"}} & set(job):
        sys.exit("this job is for Docker")
    job |= {{"container": {image!r}, "runtime": "runc", "docker": False, "privileged": False,
            "network": "open"}}
    with os.fdopen(os.memfd_create("job"), "w+") as file:
        file.write(json.dumps(job))
        file.seek(0)
        os.dup2(file.fileno(), 0)
os.execv({real!r}, [{real!r}, *words])
"""


class UnitBox:
    """`Box` of a unit. `keeps`: what it promises nonetheless."""

    def __init__(self, *keeps: Trait) -> None:
        self.keeps = frozenset(keeps)

    def ahead(self, shape: Shape, network: NetworkPolicy) -> None:
        return None

    def job_fields(self, spec: BuildSpec) -> Mapping[str, object]:
        return {"unit": True}

    def inside(
        self,
        command: Sequence[str],
        *,
        held: bool,
        terminal: str,
    ) -> list[str]:
        return list(command) or ["sh"]


class UnitProvider(FakeProvider):
    """The fake cloud's, whose machines are units."""

    def __init__(self, name: str, cloud: Cloud, *keeps: Trait) -> None:
        super().__init__(name, cloud)
        self.box = UnitBox(*keeps)


def supervisor(directory: Path, image: str) -> Path:
    """The program that a unit of this image has."""
    program = directory / "unit-supervisor"
    text = SUPERVISOR.format(line=INTERPRETER_LINE, image=image, real=supervisor_calls.SUPERVISOR)
    program.write_text(text)
    program.chmod(0o755)
    return program
