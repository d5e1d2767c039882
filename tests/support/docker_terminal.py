#!/usr/bin/env python3
"""`docker inspect` and `docker exec [-t] …` over plain processes, as docker does them: what runs at
a terminal lives on when its client has gone. `work` and `env`, beside this file, are what the
container has as /work and /vmrunner/env."""

import fcntl
import getopt
import os
import pty
import select
import signal
import sys
import termios
import tty
from pathlib import Path

HERE = Path(__file__).parent
SIZE = bytes(8)


def main() -> int:
    if sys.argv[1] == "inspect":
        print((HERE / "status").read_text())
        return 0
    given, (_, *words) = getopt.getopt(sys.argv[2:], "itw:e:")
    options = dict(given)
    os.environ |= [option.split("=", 1) for name, option in given if name == "-e"]
    work = str(HERE / "work")
    words = [work if word == "/work" else word for word in words]
    words = [word.replace("/vmrunner/env", str(HERE / "env")) for word in words]
    os.chdir(options["-w"].replace("/work", work, 1))
    if "-t" not in options:
        os.execvp(words[0], words)
    size = fcntl.ioctl(0, termios.TIOCGWINSZ, SIZE)
    child, main_end = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, size)
        for number in (signal.SIGINT, signal.SIGQUIT):  # what the client ignores is its alone
            signal.signal(number, signal.SIG_DFL)
        os.environ["TERM"] = "xterm"
        os.execvp(words[0], words)
    if os.fork() == 0:  # the daemon, which has the terminal for as long as the command lives
        os.setsid()
        os.closerange(0, 3)
        select.select([os.pidfd_open(child)], [], [])
        os._exit(0)
    relay(main_end)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code


def relay(main_end: int) -> None:
    tty.setraw(0, termios.TCSANOW)
    signal.signal(
        signal.SIGWINCH,
        lambda *_: fcntl.ioctl(
            main_end, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, SIZE)
        ),
    )
    ways = {0: main_end, main_end: 1}
    while True:
        for source in select.select(list(ways), [], [])[0]:
            try:
                data = os.read(source, 65536)
            except OSError:
                data = b""
            if not data and source:  # the command has ended
                return
            if not data:  # its own terminal is gone: that is nothing to docker
                del ways[source]
            while data:
                data = data[os.write(ways[source], data) :]


if __name__ == "__main__":
    sys.exit(main())
