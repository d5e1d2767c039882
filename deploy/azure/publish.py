"""Put the guard's code into its function app, and see that it arrived.

    python3 publish.py SUBSCRIPTION GROUP APP

An app of the Flex Consumption plan takes code at /api/publish alone: what `zip_deploy_file` of
Terraform's provider posts to, /api/zipdeploy, is a 404 there. It is done when the app shows a
function, since an app without one is there, runs, and ends nothing.

Signs in as `az login` did; VMRUNNER_AZURE_TOKEN, a token of Resource Manager's, comes before that.
Nothing but the standard library is needed.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

API: Final = "https://management.azure.com"
WEB: Final = "2023-12-01"  # version of Microsoft.Web's API
FILES: Final = ("function_app.py", "host.json")
TIMEOUT: Final = 120.0  # seconds of one request
#: So long it is waited for, in seconds: rights, names and hosts of a new app are not there at once.
PATIENCE: Final = 600.0
TURN: Final = 5.0
#: States of a deployment.
FAILED, SUCCEEDED = 3, 4


class NotPublished(Exception):
    """The code is not where it should be."""


class _NoRedirects(HTTPRedirectHandler):
    """Redirects are refused: a token goes to one server."""

    def redirect_request(self, *_: Any) -> None:
        return None


def package(folder: Path) -> bytes:
    """Zip the guard's files. They carry Unix permissions: files that the host may not read are no
    functions, and no error either."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in FILES:
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, (folder / name).read_bytes())
    return packed.getvalue()


class App:
    """One function app. `base`: of Resource Manager."""

    def __init__(
        self,
        where: str,
        token: str,
        *,
        base: str = API,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """`where`: its id."""
        self._where, self._token, self._base = where, token, base
        self._clock, self._sleep = clock, sleep
        self._opener = build_opener(_NoRedirects)

    def publish(self, code: bytes) -> list[str]:
        """Send the code, and return the names of the functions that the app then shows. Raises
        `NotPublished`."""
        until = self._clock() + PATIENCE
        scm = self._until(until, self._scm, "the app names no host for deployments")
        publish = f"{scm}/api/publish?RemoteBuild=false&Deployer=vmrunner"
        self._until(until, lambda: self._sent(publish, code), "the code was not accepted")
        latest = f"{scm}/api/deployments/latest"
        self._until(until, lambda: self._deployed(latest), "its deployment did not end")
        found: list[str] = self._until(until, self._functions, "the app shows no function")
        return found

    # --- within ---

    def _until(self, until: float, ask: Callable[[], Any], what: str) -> Any:
        """The first answer of `ask` that is not empty. Raises `NotPublished`."""
        why = ""
        while True:
            try:
                if found := ask():
                    return found
            except HTTPError as error:
                why = f": {error.code} {error.read(300).decode(errors='replace').strip()}"
                if error.code == 404 and "/api/publish" in str(error.url):
                    raise NotPublished(f"{what}{why}: no app of Flex Consumption?") from error
            except OSError as error:
                why = f": {error}"
            if self._clock() >= until:
                raise NotPublished(f"{what}{why}")
            self._sleep(TURN)

    def _scm(self) -> str:
        """URL to which deployments go; "": not known yet."""
        shown = self._ask(f"{self._base}{self._where}?api-version={WEB}")
        hosts = shown["properties"].get("hostNameSslStates") or ()
        names = [str(host["name"]) for host in hosts if host.get("hostType") == "Repository"]
        scheme = self._base.partition("://")[0]
        return f"{scheme}://{names[0]}" if names else ""

    def _sent(self, url: str, code: bytes) -> bool:
        self._ask(url, code)
        return True

    def _deployed(self, url: str) -> bool:
        shown = self._ask(url)
        if shown.get("status") == FAILED:
            raise NotPublished(
                f"its deployment failed: {shown.get('status_text') or 'no word why'}"
            )
        return bool(shown.get("status") == SUCCEEDED)

    def _functions(self) -> list[str]:
        shown = self._ask(f"{self._base}{self._where}/functions?api-version={WEB}")
        return [str(function["name"]) for function in shown.get("value") or ()]

    def _ask(self, url: str, body: bytes | None = None) -> Any:
        """Raises `OSError`, of which `HTTPError` is one."""
        headers = {"Authorization": f"Bearer {self._token}"}
        if body is not None:
            headers["Content-Type"] = "application/zip"
        if not url.startswith(("https://", self._base)):
            raise OSError(f"no address of Azure's: {url[:100]}")
        request = Request(url, data=body, headers=headers)  # noqa: S310 - checked
        with self._opener.open(request, timeout=TIMEOUT) as answer:
            text = answer.read()
        try:
            return json.loads(text) if text else {}
        except ValueError:
            return {}


def token() -> str:
    """Return a token of Resource Manager's, which deployments take too."""
    if given := os.environ.get("VMRUNNER_AZURE_TOKEN"):
        return given
    argv = ["az", "account", "get-access-token", "--resource", API, "--query", "accessToken"]
    shown = subprocess.run([*argv, "-o", "tsv"], stdout=subprocess.PIPE, text=True, check=True)
    return shown.stdout.strip()


def main(arguments: list[str], **more: Any) -> int:
    if len(arguments) != 3:
        sys.stderr.write("usage: publish.py SUBSCRIPTION GROUP APP\n")
        return 2
    subscription, group, name = arguments
    where = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Web/sites/"
    code = package(Path(__file__).parent / "guard")
    try:
        found = App(f"{where}{name}", token(), **more).publish(code)
    except NotPublished as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 1
    sys.stdout.write(f"{name}: {', '.join(found)} published\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
