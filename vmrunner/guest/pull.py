"""A container image that this VM does not have: how Docker is asked for it, and what it says.

The answer is a stream that lasts as long as the pull, minutes maybe: an HTTP head, then a JSON
value a line. It is read as it comes, in little memory. Docker says there what went wrong; that
all went well is best seen by making the container.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from . import docker
from .state import ContainerError

if TYPE_CHECKING:
    import socket


TRIES = 3
RETRY_PAUSE = 3.0  # seconds before another try
LINE = 64 << 10  # bytes of one; a longer one is no word of Docker's
WORDS = 300  # characters of its complaint


class NotPulled(ContainerError):
    """The image is not here and cannot be pulled; the message is Docker's, in one line."""


def missing(error: ContainerError) -> bool:
    """True if the error says that there is no such image."""
    return error.status == 404 and "image" in str(error)


class Pull:
    """Up to `TRIES` tries to pull one image."""

    def __init__(self, name: str, login: str = "") -> None:
        """`login`: what the registry is told, as Docker wants it."""
        self._name = name
        self._login = login
        self._answer = PullAnswer()
        self.tried = 0

    def ask(self) -> socket.socket:
        """The connection of one more try. Docker ends a pull whose asker hangs up."""
        self.tried += 1
        self._answer = PullAnswer()
        header = f"X-Registry-Auth: {self._login}\r\n" if self._login else ""
        return docker.send("POST", f"/images/create?{query(self._name)}", header=header)

    def feed(self, part: bytes) -> None:
        self._answer.feed(part)

    def check(self) -> None:
        """Raises NotPulled when another try makes no sense: a registry that says no says it again,
        a network that fails may work in a moment."""
        self._answer.feed(b"\n")  # the last line may have no end
        if self.tried >= TRIES or 400 <= self._answer.status < 500:
            raise NotPulled(self._answer.status, self._answer.complaint)


class PullAnswer:
    """Docker's, as far as it came."""

    def __init__(self) -> None:
        self.status = 0  # HTTP's
        self.complaint = "Docker does not say why"
        self._buffer = b""
        self._skips = False  # the rest of a line that is too long

    def feed(self, part: bytes) -> None:
        *lines, rest = (self._buffer + part).split(b"\n")
        for line in lines:
            if not self._skips:
                self._line(line.strip())
            self._skips = False
        self._skips = self._skips or len(rest) > LINE
        self._buffer = b"" if self._skips else rest

    def _line(self, line: bytes) -> None:
        """The first is the status, what begins a JSON object is a word, the rest is HTTP's."""
        if not self.status and line.startswith(b"HTTP/"):
            word = line.split()[1:2]
            self.status = int(word[0]) if word and word[0].isdigit() else 0
        elif line.startswith(b"{"):
            self._word(line)

    def _word(self, line: bytes) -> None:
        """Progress, or what went wrong: then it is the last one."""
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            return
        detail = document.get("errorDetail")
        inner = detail.get("message") if isinstance(detail, dict) else None
        message = inner or document.get("error") or (self.status >= 400 and document.get("message"))
        if message:
            self.complaint = " ".join(str(message).split())[:WORDS]


def query(name: str) -> str:
    """`name` as Docker wants to be asked for it. Without a tag it would pull all there are; a
    digest says more than a tag, and goes with the name."""
    from urllib.parse import urlencode  # few builds pull

    name, _, digest = name.partition("@")
    base, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:  # a colon before a slash begins a registry's port
        base, tag = name, "latest"
    parameters = {"fromImage": f"{base}@{digest}"} if digest else {"fromImage": base, "tag": tag}
    return urlencode(parameters)
