"""The guard: the part of the reaper that lives in the Google Cloud project and needs nothing of
vmrunner's.

A function, invoked every five minutes. It keeps no state and asks no ledger: what is past the
deadline in its own labels, plus a grace, is deleted; VMs first, then what else of ours bills.
Compute Engine itself deletes a running VM at its deadline. What it does not end is what this is
for: a VM that was stopped or suspended, which clears that deadline, and disks, addresses and
snapshots. What has no label of ours is never even listed. One kind or place that fails holds no
other back; at the end the failures are reported and raised, so that the invocation counts as failed
and its alert fires.

A pass that saw the project's VMs, and that Google let end those that were due, leaves its time in
the description of the function's account: without that sign vmrunner takes the guard for dead.

The deadline is `vmrunner-expires-at`; where that cannot be read, creation + `vmrunner-max-ttl`, the
limit at that time, and without that label creation + VMRUNNER_MAX_TTL. So a limit that is lowered
ends nothing that was promised more. What none of them tells is reported and lives.

    VMRUNNER_INSTALLATION  whose; `*`: any
    VMRUNNER_PROJECT       where; default: the function's own project
    VMRUNNER_GRACE         seconds past the deadline, default 480: vmrunner itself comes first
    VMRUNNER_MAX_TTL       seconds, the longest life of any VM; empty: only labels tell
    VMRUNNER_ACCOUNT       the function's own account, where a pass leaves its time

One file, google-auth and requests. A body `{"dry_run": true}` only tells what would end.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple

import google.auth
import requests
from google.auth.transport.requests import AuthorizedSession

LABEL: Final = "vmrunner-"
#: Of every installation of vmrunner, these alone end by their labels.
ROLES: Final = ("build", "pool", "image")
GRACE: Final = 480.0
ANY: Final = "*"
PAGE: Final = 500
API: Final = "https://compute.googleapis.com/compute/v1"
IAM: Final = "https://iam.googleapis.com"
SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
TIMEOUT: Final = 20.0  # seconds
TRIES: Final = 3
AT_ONCE: Final = 16  # zones

#: How a thing is refused that is in use, or that is being deleted already.
BUSY: Final = ("resourceInUseByAnotherResource", "resourceNotReady")
#: The same reason without these words is the project's own limit.
OF_ONE: Final = "rate exceeded for resource"

#: What a pass tells of.
REPORT_KEYS: Final = ("ended", "held", "unreadable", "failures")

Item = Mapping[str, Any]


class GuardFailed(Exception):
    """Something could not be read or ended. All else was."""


class Refused(Exception):
    """An error answer; `reason` in Google's word."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}"[:300])
        self.status = status
        self.reason = reason
        #: Is the thing in use, or does an operation on it go on, such as another delete?
        self.busy = reason in BUSY or (reason == "rateLimitExceeded" and OF_ONE in message)
        #: Is a right missing? Of too many calls Google says 403 too.
        self.denied = status == 403 and not reason.endswith("Exceeded")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Raises `ValueError` with the variable and its value."""

    installation: str
    project: str = ""
    account: str = ""
    grace: float = GRACE
    max_ttl: float | None = None

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        installation = environment.get("VMRUNNER_INSTALLATION", "").strip()
        if not installation:
            raise ValueError("VMRUNNER_INSTALLATION: none; set a ledger's installation, or *")
        grace = _seconds(environment, "VMRUNNER_GRACE")
        return cls(
            installation=installation,
            project=environment.get("VMRUNNER_PROJECT", "").strip(),
            account=environment.get("VMRUNNER_ACCOUNT", "").strip(),
            grace=GRACE if grace is None else grace,
            max_ttl=_seconds(environment, "VMRUNNER_MAX_TTL"),
        )


def _seconds(environment: Mapping[str, str], name: str) -> float | None:
    text = environment.get(name, "").strip()
    if text and not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ValueError(f"{name}: {text!r}; whole seconds, such as 480")
    return float(text) if text else None


# --- whose it is, and until when -----------------------------------------------------------------


def ours(labels: Mapping[str, str], installation: str) -> bool:
    """True if it is of this installation, by label and role."""
    whose = labels.get(f"{LABEL}installation", "")
    owned = bool(whose) and installation in (whose, ANY)
    return owned and labels.get(f"{LABEL}role") in ROLES


def expires_at(labels: Mapping[str, str]) -> float | None:
    """Epoch seconds in the label; None: unreadable, or absent."""
    return _number(labels, "expires-at")


def deadline(item: Item, max_ttl: float | None) -> float | None:
    """Epoch seconds. `max_ttl`: today's limit, where its labels lack the one at its creation."""
    labels = item.get("labels", {})
    expiry, created = expires_at(labels), created_at(item)
    life = _number(labels, "max-ttl")
    life = max_ttl if life is None else life
    if expiry is not None or created is None or life is None:
        return expiry
    return created + life


def _number(labels: Mapping[str, str], name: str) -> float | None:
    text = labels.get(LABEL + name, "")
    return float(text) if re.fullmatch(r"\d{1,12}", text, re.ASCII) else None


def created_at(item: Item) -> float | None:
    try:
        return datetime.fromisoformat(item["creationTimestamp"]).timestamp()
    except (KeyError, ValueError):
        return None


class Thing(NamedTuple):
    """Something of ours, so many seconds past its deadline. `path`: within the project."""

    path: str
    instance: str
    overdue: float
    item: Item


class Kind(NamedTuple):
    """A kind of resource. `free`: may one be deleted? `zonal`: zones can be listed one by one."""

    name: str
    listing: str
    key: str
    free: Callable[[Item], bool]
    zonal: bool = False


#: What hangs on a VM goes with it, or is free when that is gone.
INSTANCES: Final = Kind("instance", "aggregated/instances", "instances", lambda _: True, True)
DISKS: Final = Kind("disk", "aggregated/disks", "disks", lambda item: not item.get("users"), True)
ADDRESSES: Final = Kind(
    "address", "aggregated/addresses", "addresses", lambda item: item.get("status") != "IN_USE"
)
SNAPSHOTS: Final = Kind("snapshot", "global/snapshots", "", lambda _: True)
KINDS: Final = (INSTANCES, DISKS, ADDRESSES, SNAPSHOTS)


class Pass:
    """One pass over one project. `lines`: of the report, by key: ended, in use, with unreadable
    labels, and failed."""

    def __init__(
        self, session: Any, base: str, settings: Settings, now: float, *, dry_run: bool
    ) -> None:
        self._session = session
        self._base = f"{base}/projects/{settings.project}"
        self._settings = settings
        self._now = now
        self._dry_run = dry_run
        self.saw = False  # VMs, as far as zones answer
        self.denied = False  # the right to end one of them
        self.lines: dict[str, list[dict[str, Any]]] = {key: [] for key in REPORT_KEYS}

    def run(self) -> None:
        """The dear first. Whatever goes wrong with one kind, the others have their turn; a zone
        that does not answer keeps only its own waiting."""
        for kind in KINDS:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(partial(self._end, kind), self._expired(kind)))

    # --- looking ---

    def _expired(self, kind: Kind) -> list[Thing]:
        """As far as it can be read: what is on one page is there, whatever becomes of the next.
        A list over all zones may fail while one of them is away: then each has one of its own."""
        found: list[Thing] = []
        try:
            self._take(kind, kind.listing, found)
            self.saw |= kind is INSTANCES
        except Exception as error:  # noqa: BLE001 - reported, and what was found is ended
            if not (kind.zonal and _passing(error)):
                self._tell("failures", kind.name, error=_words(error))
                return found
            self._by_zone(kind, found)
        return found

    def _by_zone(self, kind: Kind, found: list[Thing]) -> None:
        def one(zone: str) -> None:
            try:
                self._take(kind, f"zones/{zone}/{kind.key}", found)
                self.saw |= kind is INSTANCES
            except Exception as error:  # noqa: BLE001 - the other zones have their turn
                self._tell("failures", kind.name, error=f"{zone}: {_words(error)}")

        try:
            zones = [item["name"] for page in self._pages("zones", {}) for item in _items(page)]
        except Exception as error:  # noqa: BLE001 - reported, as above
            self._tell("failures", kind.name, error=f"zones: {_words(error)}")
            return
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(one, zones))

    def _take(self, kind: Kind, listing: str, found: list[Thing]) -> None:
        """Add what is expired there to `found`, each but once."""
        paths = {thing.path for thing in found}
        whose = self._settings.installation
        label = f"labels.{LABEL}installation"
        wanted = f"{label}:*" if whose == ANY else f'{label}="{whose}"'
        for page in self._pages(listing, {"filter": wanted}):
            for place in page.get("unreachables", ()):
                self._tell("failures", kind.name, error=f"{place} is unreachable")
            self._warned(kind, "", page)
            for item in self._in(kind, page):
                thing = self._judged(kind, item)
                found += [] if thing is None or thing.path in paths else [thing]

    def _in(self, kind: Kind, page: Item) -> Iterator[Item]:
        """The items of a page, whose sections may be by place."""
        if isinstance(page.get("items"), Mapping):
            for place, part in page["items"].items():
                self._warned(kind, place, part)
                yield from part.get(kind.key, ())
        else:
            yield from _items(page)

    def _pages(self, listing: str, params: Mapping[str, str]) -> Iterator[Item]:
        query = {"maxResults": str(PAGE), **params}
        while True:
            page = self._ask("GET", listing, query)
            yield page
            if not page.get("nextPageToken"):
                return
            query["pageToken"] = page["nextPageToken"]

    def _warned(self, kind: Kind, place: str, part: Item) -> None:
        """An empty scope carries a warning too, which is none."""
        code = part.get("warning", {}).get("code", "NO_RESULTS_ON_PAGE")
        if code != "NO_RESULTS_ON_PAGE":
            self._tell("failures", kind.name, error=f"{place} {code}".strip())

    def _judged(self, kind: Kind, item: Item) -> Thing | None:
        """None: it is not ours to end, or not now."""
        labels = item.get("labels", {})
        if not ours(labels, self._settings.installation):
            return None
        path = item["selfLink"].partition("/projects/")[2].partition("/")[2]
        instance = labels.get(f"{LABEL}instance", "")
        until = deadline(item, self._settings.max_ttl)
        if until is None:
            self._tell("unreadable", kind.name, id=path, instance=instance)
            return None
        if self._now <= until + self._settings.grace or not kind.free(item):
            return None
        return Thing(path, instance, self._now - until, item)

    # --- ending ---

    def _end(self, kind: Kind, thing: Thing) -> None:
        line = {"id": thing.path, "instance": thing.instance, "late": round(thing.overdue)}
        try:
            if not self._dry_run:
                if thing.item.get("deletionProtection"):
                    off = {"deletionProtection": "false"}
                    self._ask("POST", f"{thing.path}/setDeletionProtection", off)
                self._ask("DELETE", thing.path, {})
            self._tell("ended", kind.name, **line)
        except Exception as error:  # noqa: BLE001 - the others are not held back
            if isinstance(error, Refused) and error.status == 404:
                return
            self.denied |= kind is INSTANCES and isinstance(error, Refused) and error.denied
            what = "held" if isinstance(error, Refused) and error.busy else "failures"
            self._tell(what, kind.name, **line, error=_words(error))

    def _ask(self, method: str, path: str, params: Mapping[str, str]) -> Any:
        """One call; again where a failure says nothing of the next."""
        for remaining in reversed(range(TRIES)):
            answer = self._session.request(
                method, f"{self._base}/{path}", params=params, timeout=TIMEOUT
            )
            if answer.status_code < 400:
                return answer.json()
            if answer.status_code not in (429, 500, 502, 503, 504) or not remaining:
                break
        try:
            error = answer.json()["error"]
            first: Any = next(iter(error.get("errors", ())), {})
            reason = str(first.get("reason", ""))
            message = str(error.get("message", ""))
        except (KeyError, TypeError, ValueError):
            reason, message = "", answer.text
        raise Refused(answer.status_code, reason, message)

    def _tell(self, what: str, kind: str, **more: Any) -> None:
        self.lines[what].append({"kind": kind, **more})


def _items(page: Item) -> Any:
    return page.get("items", ())


def _passing(error: Exception) -> bool:
    """True if the failure says nothing of the caller or of the request."""
    if isinstance(error, Refused):
        return error.status >= 500
    return isinstance(error, requests.RequestException)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def guard(
    settings: Settings, session: Any, now: float, *, base: str = API, dry_run: bool = False
) -> dict[str, Any]:
    """One pass; what it did. `session`: of requests, authorized. `base`: of the API's paths."""
    made = Pass(session, base, settings, now, dry_run=dry_run)
    made.run()
    return {
        "installation": settings.installation,
        "project": settings.project,
        "saw": made.saw,
        "denied": made.denied,
        "dry_run": dry_run,
        **made.lines,
    }


def leave_sign(session: Any, account: str, now: float, *, base: str = IAM) -> None:
    """Leave the time of a pass in the description of the function's account. Raises requests'
    errors."""
    sign = {"description": f"last-pass={int(now)}"}
    change = {"serviceAccount": sign, "updateMask": "description"}
    url = f"{base}/v1/projects/-/serviceAccounts/{account}"
    session.request("PATCH", url, json=change, timeout=TIMEOUT).raise_for_status()


def invoked(
    settings: Settings, session: Any, now: float, *, url: str = "", dry_run: bool = False
) -> str:
    """One pass, reported and signed. `url`: of all services at once, where that is not Google's.
    Raises `GuardFailed` after all was done that could be."""
    base = f"{url}/compute/v1" if url else API
    report = guard(settings, session, now, base=base, dry_run=dry_run)
    text = json.dumps(report)
    print(text)  # noqa: T201 - to the function's log
    works = report["saw"] and not report["denied"]
    if settings.account and works and not dry_run:
        leave_sign(session, settings.account, now, base=url or IAM)
    if failures := report["failures"]:
        raise GuardFailed(f"{len(failures)} failures: {json.dumps(failures[:3])}")
    return text


def handler(request: Any) -> str:
    """The entry point of Cloud Functions. Raises `GuardFailed` after all was done that could be."""
    body = request.get_json(silent=True) if request is not None else None
    dry_run = isinstance(body, Mapping) and body.get("dry_run") is True
    settings = Settings.read(os.environ)
    credentials, project = google.auth.default(scopes=[SCOPE])
    if not settings.project:
        settings = Settings(**{**vars(settings), "project": project or ""})
    make: Any = AuthorizedSession
    return invoked(settings, make(credentials), time.time(), dry_run=dry_run)
