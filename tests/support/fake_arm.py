"""Azure Resource Manager of one group, played in memory for what a guard asks it: lists in pages,
deletes, and refusals."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from deploy.azure.guard.function_app import Answer

SUBSCRIPTION: Final = "00000000-0000-4000-8000-0000000000aa"
GROUP: Final = "vmrunner-builds"
BASE: Final = "https://arm.test"
PAGE: Final = 3
TYPES: Final = {
    "instance": "Microsoft.Compute/virtualMachines",
    "interface": "Microsoft.Network/networkInterfaces",
    "address": "Microsoft.Network/publicIPAddresses",
    "disk": "Microsoft.Compute/disks",
    "snapshot": "Microsoft.Compute/snapshots",
}


def refusal(status: int, code: str, message: str = "", wait: float | None = None) -> Answer:
    return Answer(status, {"error": {"code": code, "message": message}}, wait)


class FakeArm:
    """`fate` answers in Azure's place; None: Azure answers."""

    def __init__(self) -> None:
        self.things: dict[str, dict[str, Any]] = {}  # by id in lower case
        self.requests: list[tuple[str, str, dict[str, str]]] = []  # method, path, query
        self.fate: Callable[[str, str], Answer | Exception | None] = lambda method, path: None
        self._lock = threading.Lock()

    def put(
        self,
        kind: str,
        name: str,
        tags: Mapping[str, str],
        *,
        created_at: float | None = None,
        used: str = "",
    ) -> str:
        """Something that is there; its id. `used`: by whom."""
        where = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/{TYPES[kind]}"
        item: dict[str, Any] = {"id": f"{where}/{name}", "tags": dict(tags), "properties": {}}
        if created_at is not None and kind in ("instance", "disk", "snapshot"):
            shown = datetime.fromtimestamp(created_at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
            item["properties"]["timeCreated"] = f"{shown}1+00:00"
        if used and kind == "disk":
            item["managedBy"] = used
        elif used:
            key = {"interface": "virtualMachine", "address": "ipConfiguration"}[kind]
            item["properties"][key] = {"id": used}
        self.things[item["id"].lower()] = item
        return str(item["id"])

    @property
    def names(self) -> set[str]:
        """Of what is left."""
        return {item["id"].rpartition("/")[2] for item in self.things.values()}

    def calls(self, method: str) -> Counter[str]:
        """How often each path was asked so."""
        return Counter(path for used, path, _ in self.requests if used == method)

    def send(self, method: str, url: str) -> Answer:
        parts = urlsplit(url)
        assert f"{parts.scheme}://{parts.hostname}" == BASE
        path = unquote(parts.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        with self._lock:
            self.requests.append((method, path, query))
            fate = self.fate(method, path)
            if isinstance(fate, Exception):
                raise fate
            return fate or (self._list(path, query) if method == "GET" else self._delete(path))

    def _list(self, path: str, query: Mapping[str, str]) -> Answer:
        begin = int(query.get("$skiptoken", "0"))
        found = [
            item for key, item in self.things.items() if key.rpartition("/")[0] == path.lower()
        ]
        page: dict[str, Any] = {"value": found[begin : begin + PAGE]}
        if begin + PAGE < len(found):
            version = query["api-version"]
            more = f"{path}?api-version={version}&$skiptoken={begin + PAGE}"
            page["nextLink"] = f"{BASE}:443{more}"
        return Answer(200, page)

    def _delete(self, path: str) -> Answer:
        if self.things.pop(path.lower(), None) is None:
            return refusal(404, "ResourceNotFound")
        return Answer(202, None)


class ArmFront(ThreadingHTTPServer):
    """The identity endpoint of a function's host, and a `FakeArm` for who shows its token."""

    def __init__(self, arm: FakeArm) -> None:
        super().__init__(("127.0.0.1", 0), _FrontHandler)
        self.arm = arm
        self.url = f"http://127.0.0.1:{self.server_port}"


class _FrontHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        front = self.server
        assert isinstance(front, ArmFront)
        if self.path.startswith("/msi/token?"):
            shows_it = self.headers["X-IDENTITY-HEADER"] == "of-the-host"
            self._tell(Answer(200 if shows_it else 401, {"access_token": "shown"}))
        elif self.headers["Authorization"] == "Bearer shown":
            answer = front.arm.send(self.command, f"{BASE}{self.path}")
            body = json.loads(json.dumps(answer.body).replace(f"{BASE}:443", front.url))
            self._tell(answer._replace(body=body))
        else:
            self._tell(refusal(401, "AuthenticationFailed"))

    def do_DELETE(self) -> None:
        self.do_GET()

    def _tell(self, answer: Answer) -> None:
        text = b"" if answer.body is None else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(text)))
        if answer.wait is not None:
            self.send_header("Retry-After", str(int(answer.wait)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words: object) -> None:
        pass
