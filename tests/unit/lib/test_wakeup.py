from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

from tests.support.descriptors import many_open
from vmrunner.lib import wakeup


def test_a_poke_reaches_every_listener_at_once(tmp_path: Path) -> None:
    listeners = [wakeup.Listener(tmp_path, f"e-{n}") for n in range(3)]
    assert wakeup.poke(tmp_path) == 3
    assert all(listener.wait(5) for listener in listeners)
    assert not any(listener.wait(0) for listener in listeners)  # hints are drained
    for listener in listeners:
        listener.close()
    assert wakeup.poke(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


def test_set_wakes_a_waiter_from_another_thread() -> None:
    listener = wakeup.Listener(None, "e")
    started = time.monotonic()
    threading.Timer(0.05, listener.set).start()
    assert listener.wait(30)
    assert time.monotonic() - started < 10
    listener.close()


def test_each_hint_after_a_wait_wakes_the_next_one() -> None:
    listener = wakeup.Listener(None, "e")
    for _ in range(3):
        listener.set()
        listener.set()
        assert listener.wait(30)
        assert not listener.wait(0)
    listener.close()


def test_a_late_set_writes_to_nobody_elses_file() -> None:
    """A closed descriptor's number is soon another file's: a byte there would break a stream."""
    listener = wakeup.Listener(None, "e")
    listener.close()
    listener.close()
    pipes = [os.pipe2(os.O_NONBLOCK) for _ in range(4)]  # the lowest free numbers: the former two
    listener.set()
    for reader, writer in pipes:
        os.close(writer)
        assert os.read(reader, 1) == b""
        os.close(reader)


def test_closing_wakes_waiters_and_late_waits_read_no_foreign_file(tmp_path: Path) -> None:
    listener = wakeup.Listener(tmp_path, "e")
    woken: list[bool] = []
    waiter = threading.Thread(target=lambda: woken.append(listener.wait(3600)))
    waiter.start()
    listener.close()
    waiter.join(30)
    assert woken in ([True], [False])  # it waited, or came too late
    reader, writer = os.pipe2(os.O_NONBLOCK)
    os.write(writer, b"theirs")
    assert not listener.wait(3600)
    assert os.read(reader, 9) == b"theirs"
    os.close(reader)
    os.close(writer)


def test_a_listener_whose_descriptors_have_large_numbers_hears_too(tmp_path: Path) -> None:
    with many_open():
        listener = wakeup.Listener(tmp_path, "e")
        assert not listener.wait(0.01)
        listener.set()
        assert listener.wait(30)
        assert wakeup.poke(tmp_path) == 1
        assert listener.wait(30)
        listener.close()


def test_sockets_of_the_dead_are_removed_and_do_no_harm(tmp_path: Path) -> None:
    dead = tmp_path / "e-dead.wake"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(dead))
    (tmp_path / "e-file.wake").write_text("")
    assert wakeup.poke(tmp_path) == 0
    assert not dead.exists()
    assert wakeup.poke(tmp_path / "nowhere") == 0


def test_the_length_of_the_directorys_name_does_not_matter(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120) / ("y" * 120)
    listener = wakeup.Listener(deep, "e")
    assert wakeup.poke(deep) == 1
    assert listener.wait(5)
    listener.close()
    assert list(deep.iterdir()) == []


def test_a_full_queue_of_hints_never_blocks(tmp_path: Path) -> None:
    listener = wakeup.Listener(tmp_path, "e")
    for _ in range(10_000):
        wakeup.poke(tmp_path)
        listener.set()
    assert listener.wait(0)
    listener.close()
