"""Messages for a person about a connection that failed."""

from __future__ import annotations

import paramiko

from vmrunner.lib.terminal import clean


def explain(error: BaseException) -> str:
    """A message for a person about the error of a connection."""
    if isinstance(error, paramiko.BadHostKeyException):
        return "the host key is not the one that was planted"
    if isinstance(error, paramiko.AuthenticationException):
        return "the instance's key was refused"
    if isinstance(error, paramiko.ChannelException):
        return f"the VM refused it: {clean(str(error.text)[:300]).lower()}"
    return clean(str(error)[:300]) or type(error).__name__
