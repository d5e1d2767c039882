"""A notice to people by Apprise, which speaks to Slack, Teams, mail and a hundred others.

It runs in a process of its own, with little memory and an end: what it loads, and how long a
service takes, is no matter of ours. It follows no redirect, and nothing on this machine is told.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from typing import Final

from vmrunner.errors import ConfigError

WHOLE_NOTICE: Final = 25.0  # seconds
TOLD: Final = 200  # characters of why it was not taken
#: Variables that the process has: how to reach the network, and no secret.
_ENVIRONMENT: Final = (
    "PATH", "LANG", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy",
    "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
)  # fmt: skip
_PROGRAM: Final = """
import json, logging, resource, sys
for limit, most in (
    (resource.RLIMIT_AS, 2 << 30), (resource.RLIMIT_CPU, 20), (resource.RLIMIT_FSIZE, 1 << 20),
    (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 256),
):
    hard = resource.getrlimit(limit)[1]
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(limit, (least, least))
wanted = json.load(sys.stdin)
import apprise
from apprise.common import PersistentStoreMode
heard = []
class Ear(logging.Handler):
    def emit(self, record):
        heard.append(record.getMessage())
log = logging.getLogger("apprise")
log.addHandler(Ear(logging.WARNING))
log.propagate = False
asset = apprise.AppriseAsset(
    app_id="vmrunner", app_desc="vmrunner", async_mode=False, secure_logging=True,
    storage_mode=PersistentStoreMode.MEMORY,
)
asset.http_redirects = False
service = apprise.Apprise.instantiate(wanted["url"], asset=asset)
local = {"dbus", "glib", "gnome", "macosx", "windows", "syslog", "blink1", "kodi"}
if service is None:
    answer = "not a URL that Apprise knows"
elif type(service).__module__.split(".")[-1] in local:
    answer = "that service is on this machine: none is told there"
else:
    service.redirects = False
    service.socket_connect_timeout, service.socket_read_timeout = 5.0, 10.0
    done = service.notify(body=wanted["text"], body_format=apprise.NotifyFormat.TEXT)
    answer = "" if done else "; ".join(heard[-2:]) or "it was not taken"
print(json.dumps(answer))
"""


def require() -> None:
    """Raises ConfigError where Apprise is not installed."""
    if importlib.util.find_spec("apprise") is None:
        raise ConfigError("notify: apprise is not installed", hint="pip install 'vmrunner[notify]'")


def tell(url: bytes, text: str, *, whole: float = WHOLE_NOTICE) -> str:
    """Send the text once. Return why it was not taken; empty when it was. The URL is a secret: no
    part of it is in what is returned."""
    secret = url.decode(errors="replace").strip()
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", _PROGRAM],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/",
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        start_new_session=True,
    )  # fmt: skip
    try:
        order = json.dumps({"url": secret, "text": text}).encode()
        output, _ = child.communicate(order, timeout=whole)
    except subprocess.TimeoutExpired:
        return f"no answer within {whole:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
    try:
        answer = str(json.loads(output))
    except ValueError:
        return f"Apprise ended with exit code {child.returncode}"
    return "" if not answer else _without(answer, secret)[:TOLD]


def _without(text: str, secret: str) -> str:
    """The text without the URL and its parts."""
    parts = [secret]
    word = ""
    for character in f"{secret}/":
        if character in "/:@?&=,":
            parts.append(word)
            word = ""
        else:
            word += character
    for part in sorted(filter(lambda p: len(p) > 3, parts), key=len, reverse=True):
        text = text.replace(part, "***")
    return " ".join(text.split())
