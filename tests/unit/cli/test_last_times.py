"""How long slow steps took, told to who waits for the next."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from vmrunner.cli.last_times import FILE, LastTimes


def test_a_step_says_what_it_took_last(tmp_path: Path) -> None:
    now = [100.0]
    times = LastTimes(tmp_path, clock=lambda: now[0])
    with times.steps("template: ") as begin:
        assert begin("boot") == ""
        now[0] += 120
        assert begin("clone") == ""
        now[0] += 2  # too little to be told
    again = LastTimes(tmp_path, clock=lambda: now[0])
    assert again.hint("template: boot") == " (2m00s the last time)"
    assert again.hint("template: clone") == ""
    with contextlib.suppress(OSError), again.steps("template: ") as begin:
        begin("boot")
        now[0] += 999
        raise OSError("full")
    assert again.hint("template: boot") == " (2m00s the last time)", "one that failed says nothing"


@pytest.mark.parametrize(
    "content",
    ["", "[]", "nonsense", '{"a": "b"}', "\x00", '{"a": Infinity}', '{"a": NaN}', '{"a": -1}',
     f'{{"a": 1{"0" * 400}}}', "[" * 100_000],
)  # fmt: skip
def test_a_file_that_cannot_be_read_costs_a_hint(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    times = LastTimes(tmp_path)
    assert times.hint("a") == ""
    times.note("a", 60)
    assert times.hint("a") == " (1m00s the last time)"
    LastTimes(tmp_path / "none").note("a", 60)
