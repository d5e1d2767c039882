"""A server over a build whose VM is an sshd, as a process that can be killed with all of it. Prints
its URL and so many tokens as JSON, and ends with stdin.

    python -m tests.support.entered_server DIR TOKENS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.entered import entered
from tests.support.sshd import running


def serve(root: Path, tokens: int) -> None:
    patch = pytest.MonkeyPatch()
    (root / "service").mkdir()
    with running(root) as sshd, entered(root / "service", sshd, patch) as world:
        world.ledger.instances.addresses([("vm-b-1", 1, sshd.address)])  # without a proxy
        found = {"url": world.http.url, "tokens": [world.token() for _ in range(tokens)]}
        print(json.dumps(found), flush=True)
        sys.stdin.read()
    patch.undo()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
