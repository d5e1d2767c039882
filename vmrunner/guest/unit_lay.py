"""`supervisor lay`: puts driver and FIFOs into the box, before either container starts. Both wait
for it, so it loads next to nothing.
"""

from __future__ import annotations

import os

BOX = "/vmrunner"
FIFOS = ("log", "control", "answers", "alive", "wishes")
SCRIPTS = ("driver.sh", "beside.sh")


def lay(box: str = BOX) -> int:
    """Fill the box. Nothing that lies there already is followed, or written into."""
    os.umask(0)
    here = os.path.dirname(__file__)
    above = os.open(box, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    present = set(os.listdir(above))
    for name in SCRIPTS:
        if name in present:
            os.unlink(name, dir_fd=above)
        with open(f"{here}/{name}", "rb") as file:
            data = file.read()
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=above)
        with open(fd, "wb") as file:
            file.write(data)
    for name in FIFOS:
        if name not in present:
            os.mkfifo(name, 0o666, dir_fd=above)
    os.close(above)
    return 0
