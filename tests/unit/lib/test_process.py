from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

from vmrunner.lib import process


def test_this_process_lives() -> None:
    me = process.current()
    assert me.pid == os.getpid()
    assert process.alive(me) is True
    assert process.current() == me


def test_another_process_lives_until_it_is_gone() -> None:
    code = (
        "from vmrunner.lib.process import current; p = current(); print(p.pid, p.started, flush=1)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", f"{code}; input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin
    assert child.stdout
    pid, started = map(int, child.stdout.readline().split())
    process_id = replace(process.current(), pid=pid, started=started)
    assert process.alive(process_id) is True
    # The same number, used again by another process, is not the same process.
    assert process.alive(replace(process_id, started=started - 1)) is False
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.alive(process_id) is False  # ended, though nobody has asked how yet
    child.wait()
    child.stdout.close()
    assert process.alive(process_id) is False


def test_elsewhere_nothing_can_be_told() -> None:
    me = process.current()
    assert process.alive(replace(me, machine="another")) is None
    assert process.alive(replace(me, pid_namespace="pid:[1]")) is None
    assert process.alive(replace(me, boot="before")) is None
    assert process.alive(replace(me, boot="before"), one_host=True) is False
