"""A server over a build and a sandbox whose VM is an sshd, as a process that can be killed with all
of it. Prints its URL and so many tokens as JSON, and ends with stdin.

    python -m tests.support.entered_server DIR TOKENS [SOCKET]     (of the guest's daemon)
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.entered import ENTER, entered
from tests.support.sshd import running
from vmrunner.model import TokenScope
from vmrunner.session import supervisor_calls


def serve(root: Path, tokens: int, daemon: str = supervisor_calls.SOCKET) -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr(supervisor_calls, "SOCKET", daemon)
    (root / "service").mkdir()
    with running(root) as sshd, entered(root / "service", sshd, patch) as world:
        world.running("b-2", sandbox_ttl=600.0, steps=())
        world.ledger.instances.addresses(
            [(vm, 1, sshd.address) for vm in ("vm-b-1", "vm-b-2")]  # without a proxy
        )
        scopes = ENTER | {TokenScope.READ}
        found = {
            "url": world.http.url,
            "tokens": [world.token(scopes=scopes) for _ in range(tokens)],
        }
        print(json.dumps(found), flush=True)
        sys.stdin.read()
    patch.undo()


@contextlib.contextmanager
def node(root: Path, *daemon: Path) -> Iterator[tuple[subprocess.Popen[bytes], str, str]]:
    """Such a process in a group of its own, its URL and a token."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.entered_server", str(root), "1", *map(str, daemon)],
        cwd=Path(__file__).parents[2], start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    with process:
        place = json.loads(process.stdout.readline())
        yield process, place["url"], place["tokens"][0]


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
