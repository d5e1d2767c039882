"""What one tenant's worst costs another's `GET`: globs, secrets, bodies, filters and searches, each
as bad as the bounds let it be, while another tenant asks for its builds.

    python bench/tenants.py [KIND …] [--seconds 4] [--pairs 3]

The service is a process of its own, as is who attacks it over HTTP, and who asks. Quiet and hostile
seconds take turns, so that whatever else the machine does is in both. On a busy one the ratio is
the machine's: `chrt -r 1 python …` runs it before all else.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import multiprocessing
import os
import string
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

_PROCESSES = multiprocessing.get_context("spawn")
#: Builds of that tenant that are collected, or whose logs are masked, at once.
_BUILDS: Final = 8
_CONNECTIONS: Final = 4
#: Rows that a filter has to look through.
_ROWS: Final = 20_000


def worst_globs() -> list[str]:
    """All the characters that globs may have, and all their wildcards, in the parts that keep most
    places open."""
    from vmrunner.lib.archive.files import DEPTH
    from vmrunner.lib.globs import GLOB_CHARACTERS, GLOBS_CHARACTERS, WILDCARDS, check_all

    count = GLOBS_CHARACTERS // GLOB_CHARACTERS
    parts = ["**/*"] * (WILDCARDS // count)
    while len(parts) < DEPTH - 4 and len("/".join([*parts, "**/d", "000"])) <= GLOB_CHARACTERS:
        parts.append("**/d")
    body = "/".join(parts)
    globs = [f"{body}/{number:03}" for number in range(count)]
    check_all(globs)
    return globs


def worst_secrets() -> dict[str, str]:
    """As many lines as secrets may have, which all have one rarest byte."""
    from vmrunner.config.field_checks import SECRET_LINES

    words = ("!" + "".join(word) for word in itertools.product(string.ascii_letters, repeat=3))
    return {"S": "\n".join(itertools.islice(words, SECRET_LINES))}


class Endless(io.RawIOBase):
    """The archive that a VM sends: deep names of nothing that was asked for."""

    def __init__(self, on: Any) -> None:
        self._on, self._number, self._left = on, 0, b""

    def read(self, size: int = -1) -> bytes:
        if not self._on.is_set():
            return b""
        if not self._left:
            self._number += 1
            deep = (str(self._number), *("d",) * 60)  # each below a directory of its own
            entry = tarfile.TarInfo("/".join([*deep, str(self._number % 128).zfill(3)]))
            self._left = entry.tobuf()
        got, self._left = self._left[:size], self._left[size:]
        return got


def collect(on: Any) -> None:
    from vmrunner.errors import VmrunnerError
    from vmrunner.lib.archive.files import ArchiveCaps, extract

    globs = worst_globs()
    while on.is_set():
        with tempfile.TemporaryDirectory() as to:
            try:
                extract(Endless(on), Path(to), ArchiveCaps(), globs=globs)  # type: ignore[arg-type]
            except (VmrunnerError, OSError):
                continue  # its 20 seconds are over: the next build's


def mask(on: Any) -> None:
    from vmrunner.lib.masking import Masker
    from vmrunner.lib.secret_patterns import SecretPatterns

    while on.is_set():
        values = [value.encode() for value in worst_secrets().values()]
        masker = Masker(SecretPatterns(values))
        for _ in range(200):
            if on.is_set():
                masker.feed(b"!QZ " * (16 << 10))


def flood(url: str, token: str, kind: str, on: Any, seen: Any) -> None:
    """One connection after the other that asks for the worst of that kind."""
    body = json.dumps({"steps": ["true"], "timeout": "1h" * 900_000})
    ask: dict[str, Callable[[httpx2.Client], httpx2.Response]] = {
        "bodies": lambda http: http.post("/builds?dry_run=true", content=body),
        "filters": lambda http: http.get("/builds?label=ref%3Dmain&result=failure&limit=100"),
        "searches": lambda http: http.get("/builds/b-1/logs/search?text=nowhere"),
    }

    def one() -> None:
        with httpx2.Client(
            base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=200
        ) as http:
            while True:
                on.wait()
                answer = ask[kind](http)
                with seen.get_lock():
                    seen[answer.status_code] += 1
                if answer.status_code == httpx2.codes.TOO_MANY_REQUESTS:
                    time.sleep(0.05)  # a flood of refusals would hide what the work itself costs

    threads = [threading.Thread(target=one, daemon=True) for _ in range(_CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def serve(place: str, wire: Any, on: Any, kind: str) -> None:
    """The service, with what goes on in its process for builds of the hostile tenant."""
    os.environ["XDG_DATA_HOME"] = place
    from bench import year
    from tests.support.http_service import TENANT, service
    from tests.support.ledger_builds import running as building

    with service(Path(place)) as served:
        ledger = served.app.ledger
        if kind == "filters":
            year.template(ledger)
            year.fill(ledger, 1, _ROWS, time.time())
        building(ledger, "b-1")
        if kind == "searches":
            piece = b"%s\n" % (b"a line of a log that has nothing of it in it " * 2) * 11_000
            for number in range(64):
                end = (number + 1) * len(piece)
                ledger.logs.append("b-1", 1, 1, offset=end, data=piece, now=105.0)
        wire.send((served.url, served.token(TENANT), served.token(TENANT)))
        work = {"globs": collect, "secrets": mask}.get(kind)
        for _ in range(_BUILDS if work else 0):
            threading.Thread(target=_forever, args=(work, on), daemon=True).start()
        wire.recv()
        os._exit(0)  # nothing of it is of interest any more


def _forever(work: Callable[[Any], None], on: Any) -> None:
    while True:
        on.wait()
        work(on)


@dataclass(frozen=True)
class Found:
    """Seconds of answers."""

    quiet: list[float]
    hostile: list[float]

    def row(self) -> list[str]:
        cells = []
        for share in (0.5, 0.95, 1.0):
            quiet, hostile = (
                sorted(all_)[min(len(all_) - 1, int(share * len(all_)))]
                for all_ in (self.quiet, self.hostile)
            )
            cells.append(f"{quiet * 1e3:.1f} → {hostile * 1e3:.1f}: {hostile / quiet:.2f}×")
        return cells


def measure(kind: str, seconds: float, pairs: int) -> tuple[Found, dict[int, int]]:
    on, seen = _PROCESSES.Event(), _PROCESSES.Array("i", 600)
    ours, theirs = _PROCESSES.Pipe()
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o700)
        served = _PROCESSES.Process(target=serve, args=(place, theirs, on, kind), daemon=True)
        served.start()
        url, good, evil = ours.recv()
        attack = _PROCESSES.Process(target=flood, args=(url, evil, kind, on, seen), daemon=True)
        if kind in ("bodies", "filters", "searches"):
            attack.start()
        found = Found([], [])
        with httpx2.Client(
            base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {good}"}, timeout=200
        ) as http:
            for _ in range(pairs):
                found.quiet.extend(_asked(http, seconds))
                on.set()
                time.sleep(0.5)
                found.hostile.extend(_asked(http, seconds))
                on.clear()
                time.sleep(2)  # what is under way ends
        ours.send("end")
        served.join()
        if attack.pid:
            attack.kill()
            attack.join()
    return found, {code: count for code, count in enumerate(seen) if count}


def _asked(http: httpx2.Client, seconds: float) -> list[float]:
    took, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        begin = time.perf_counter()
        assert http.get("/builds").status_code == 200
        took.append(time.perf_counter() - begin)
        time.sleep(0.02)
    return took


KINDS: Final = ("globs", "secrets", "bodies", "filters", "searches")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    table = Table("GET /builds, ms", "p50", "p95", "longest", "answers", "the attacker's answers")
    for kind in options.kinds or KINDS:
        found, seen = measure(kind, options.seconds, options.pairs)
        counts = f"{len(found.quiet)}, {len(found.hostile)}"
        table.add_row(kind, *found.row(), counts, ", ".join(f"{n} of {c}" for c, n in seen.items()))
        print(kind, *found.row(), counts, seen, flush=True)
    load = os.getloadavg()[0]
    Console(width=150).print(table)
    print(f"{_BUILDS} builds, or {_CONNECTIONS} connections; load {load:.1f}")


if __name__ == "__main__":
    main()
