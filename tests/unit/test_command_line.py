"""The command that submits a build again, which somebody pastes into a terminal."""

from __future__ import annotations

import subprocess

from vmrunner.model import BuildSpec, Step
from vmrunner.services.command_line import command_of

EVIL = "a\x1b[201~\nrm -rf 'x' \\ $HOME `id` \x07\x7f\r"


def test_no_control_character_reaches_who_pastes_it() -> None:
    steps = (Step(argv=("printf", EVIL)),)
    spec = BuildSpec(
        steps=steps, provider="p", container="c", timeout=60.0, ttl=120.0, env={"A": EVIL}
    )
    text = command_of(spec)
    assert text.replace("\n", "").isprintable()
    script = f"vmrunner() {{ printf '%s\\0' \"$@\"; }}; {text}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    words = done.stdout.decode().split("\0")
    assert words[-3:] == ["printf", EVIL, ""]
    assert f"A={EVIL}" in words
