"""The guard: the part of the reaper that lives in the Azure subscription and needs nothing of
vmrunner's.

A function, invoked every five minutes. It keeps no state and asks no ledger: what of one resource
group is past the deadline in its own tags, plus a grace, is deleted; VMs first, then what else of
ours bills. Azure ends no VM by itself: what deallocates one at its deadline leaves its disk, and
one that its guest switched off bills as if it ran. Whatever state it is in, the VM is deleted, by
force. What has no tags of ours is never touched. One thing that fails holds no other back; at the
end the failures are logged and raised, so that the invocation counts as failed and its alert fires.

A pass that saw the group's VMs, and that Azure let end those that were due, leaves its time as a
tag of the function's own group, `vmrunner:last-pass`: without that sign vmrunner takes the guard
for dead.

The deadline is `vmrunner:expires-at`; where that cannot be read, creation + `vmrunner:max-ttl`, the
limit at that time, and without that tag creation + VMRUNNER_MAX_TTL. So a limit that is lowered
ends nothing that was promised more. What none of them tells is reported and lives; interfaces and
addresses show no creation, and have their deadline alone.

    VMRUNNER_INSTALLATION    whose; `*`: any
    VMRUNNER_SUBSCRIPTION    where
    VMRUNNER_RESOURCE_GROUP  where in it
    VMRUNNER_GUARD_GROUP     the function's own group, where a pass leaves its time
    VMRUNNER_GRACE           seconds past the deadline, default 480: vmrunner itself comes first
    VMRUNNER_MAX_TTL         seconds, the longest life of any VM; empty: only tags tell
    VMRUNNER_DRY_RUN         `true`: only tell what would end

One file, the standard library and azure.functions, which the function's host has: nothing is
installed.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import azure.functions as func

TAG: Final = "vmrunner:"
#: Of every installation of vmrunner, these alone end by their tags.
ROLES: Final = ("build", "pool", "image")
GRACE: Final = 480.0
ANY: Final = "*"
API: Final = "https://management.azure.com"
COMPUTE, DISK, NETWORK = "2024-07-01", "2024-03-02", "2024-05-01"  # versions of the API
TAGS: Final = "2021-04-01"
TIMEOUT: Final = 20.0  # seconds
TRIES: Final = 3
PAUSE: Final = 2.0  # seconds before another try, where the answer says nothing
AT_ONCE: Final = 8
#: So long a pass may take, in seconds. What is left then, the next one ends.
LONGEST: Final = 200.0

#: How a thing is refused that is in use, or that is being deleted already.
BUSY: Final = re.compile(
    "AnotherOperationInProgress|Conflict|Nic(InUse|ReservedForAnotherVm)|OperationPreempted"
    "|PublicIPAddress(CannotBeDeleted|InUse)"
)
#: With these words `OperationNotAllowed` is of one disk.
OF_ONE: Final = " attached to "
REPORT_KEYS: Final = ("ended", "held", "unreadable", "failures")
Item = Mapping[str, Any]


class GuardFailed(Exception):
    """Something could not be read or ended. All else was."""


class Refused(Exception):
    """An error answer; `code` in Azure's word."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}"[:300])
        self.status = status
        #: Is the thing in use, or does an operation on it go on, such as another delete?
        exclusive = code == "OperationNotAllowed" and OF_ONE in message
        self.busy = exclusive or BUSY.fullmatch(code) is not None


class Answer(NamedTuple):
    """An HTTP response. `wait`: seconds until another try has a point, where it says that."""

    status: int
    body: Any
    wait: float | None = None


#: A request by method and whole URL. Raises `OSError` or `http.client.HTTPException`.
Send = Callable[[str, str], Answer]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Raises `ValueError` with the variable and its value."""

    installation: str
    subscription: str
    group: str
    own_group: str = ""
    grace: float = GRACE
    max_ttl: float | None = None
    dry_run: bool = False

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        values = {key: text.strip() for key, text in environment.items() if text.strip()}
        for name, hint in (
            ("VMRUNNER_INSTALLATION", "set a ledger's installation, or *"),
            ("VMRUNNER_SUBSCRIPTION", "set the subscription's id"),
            ("VMRUNNER_RESOURCE_GROUP", "set the group in which VMs are made"),
        ):
            if name not in values:
                raise ValueError(f"{name}: none; {hint}")
        dry = values.get("VMRUNNER_DRY_RUN", "false")
        if dry not in ("true", "false"):
            raise ValueError(f"VMRUNNER_DRY_RUN: {dry!r}; true or false")
        grace = _seconds(values, "VMRUNNER_GRACE")
        return cls(
            installation=values["VMRUNNER_INSTALLATION"],
            subscription=values["VMRUNNER_SUBSCRIPTION"],
            group=values["VMRUNNER_RESOURCE_GROUP"],
            own_group=values.get("VMRUNNER_GUARD_GROUP", ""),
            grace=GRACE if grace is None else grace,
            max_ttl=_seconds(values, "VMRUNNER_MAX_TTL"),
            dry_run=dry == "true",
        )


def _seconds(values: Mapping[str, str], name: str) -> float | None:
    text = values.get(name, "")
    if text and not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ValueError(f"{name}: {text!r}; whole seconds, such as 480")
    return float(text) if text else None


# --- whose it is, and until when -----------------------------------------------------------------


def tags_of(item: Item) -> dict[str, str]:
    """Tags by name in lower case: to Azure `vmrunner:Role` is the same name."""
    return {name.lower(): value for name, value in (item.get("tags") or {}).items()}


def ours(tags: Mapping[str, str], installation: str) -> bool:
    """True if it is of this installation, by tag and role."""
    whose = tags.get(f"{TAG}installation", "")
    owned = bool(whose) and installation in (whose, ANY)
    return owned and tags.get(f"{TAG}role") in ROLES


def deadline(item: Item, max_ttl: float | None) -> float | None:
    """Epoch seconds. `max_ttl`: today's limit, where its tags lack the one at its creation."""
    tags = tags_of(item)
    expires_at, created = _number(tags, "expires-at"), created_at(item)
    life = _number(tags, "max-ttl")
    life = max_ttl if life is None else life
    if expires_at is not None or created is None or life is None:
        return expires_at
    return created + life


def _number(tags: Mapping[str, str], name: str) -> float | None:
    text = tags.get(TAG + name, "")
    return float(text) if re.fullmatch(r"\d{1,12}", text, re.ASCII) else None


def created_at(item: Item) -> float | None:
    """Epoch seconds, where it is a VM, a disk or a snapshot; else None."""
    try:
        # Azure writes seven digits of a second, of which Python 3.10 reads none.
        written = re.sub(r"(\.\d{1,6})\d*", r"\1", item["properties"]["timeCreated"])
        when = datetime.fromisoformat(written)
    except (KeyError, TypeError, ValueError):
        return None
    return when.timestamp() if when.tzinfo else None


class Thing(NamedTuple):
    """Something of ours, so many seconds past its deadline."""

    id: str
    instance: str
    overdue: float


class Kind(NamedTuple):
    """A kind of resource: how to list and delete it; `used`: the property that names its user."""

    name: str
    type: str
    version: str
    used: str = ""
    more: tuple[tuple[str, str], ...] = ()  # that a deletion says


#: What hangs on a VM goes with it, or is free when that is gone: at the next pass.
KINDS: Final = (
    Kind(
        "instance", "Microsoft.Compute/virtualMachines", COMPUTE, more=(("forceDeletion", "true"),)
    ),
    Kind("interface", "Microsoft.Network/networkInterfaces", NETWORK, "virtualMachine"),
    Kind("address", "Microsoft.Network/publicIPAddresses", NETWORK, "ipConfiguration"),
    Kind("disk", "Microsoft.Compute/disks", DISK, "managedBy"),
    Kind("snapshot", "Microsoft.Compute/snapshots", DISK),
)


def in_use(kind: Kind, item: Item) -> bool:
    """Of a disk Azure says so beside its properties, of all else among them."""
    return bool(item.get(kind.used) or item.get("properties", {}).get(kind.used))


class Pass:
    """One pass over one group. `lines`: of the report, by key: ended, in use, with unreadable
    tags, and failed."""

    def __init__(
        self,
        settings: Settings,
        send: Send,
        now: float,
        base: str,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._settings, self._send, self._now, self._base = settings, send, now, base
        self._clock, self._sleep = clock, sleep
        self._over = clock() + LONGEST
        self.saw = False  # the group's VMs
        self.denied = False  # the right to end one of them
        self.lines: dict[str, list[dict[str, Any]]] = {key: [] for key in REPORT_KEYS}

    def run(self) -> None:
        """The dear first. Whatever goes wrong with one kind, the others have their turn."""
        for kind in KINDS:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(partial(self._end, kind), self._expired(kind)))

    # --- looking ---

    def _expired(self, kind: Kind) -> list[Thing]:
        """As far as it can be read: what is on one page is there, whatever becomes of the next."""
        found: dict[str, Thing] = {}
        try:
            for item in self._items(kind):
                thing = self._judged(kind, item)
                if thing is not None:
                    found.setdefault(thing.id.lower(), thing)
            self.saw |= kind is KINDS[0]
        except Exception as error:  # noqa: BLE001 - reported, and what was found is ended
            self._tell("failures", kind.name, error=_words(error))
        return list(found.values())

    def _items(self, kind: Kind) -> Iterator[Item]:
        settings = self._settings
        url = self._url(
            f"/subscriptions/{quote(settings.subscription)}/resourceGroups/{quote(settings.group)}"
            f"/providers/{kind.type}",
            kind,
        )
        while url:
            if _origin(url) != _origin(self._base):  # our token goes nowhere else
                raise ValueError(f"a next page elsewhere: {url[:100]}")
            page = self._ask("GET", url)
            yield from page["value"]
            url = page.get("nextLink") or ""

    def _url(self, path: str, kind: Kind, more: tuple[tuple[str, str], ...] = ()) -> str:
        return f"{self._base}{path}?{urlencode((('api-version', kind.version), *more))}"

    def _judged(self, kind: Kind, item: Item) -> Thing | None:
        """None: it is not ours to end, or not now."""
        tags = tags_of(item)
        if not ours(tags, self._settings.installation):
            return None
        instance = tags.get(f"{TAG}instance", "")
        until = deadline(item, self._settings.max_ttl)
        if until is None:
            self._tell("unreadable", kind.name, id=item["id"], instance=instance)
            return None
        if self._now <= until + self._settings.grace or in_use(kind, item):
            return None
        return Thing(item["id"], instance, self._now - until)

    # --- ending ---

    def _end(self, kind: Kind, thing: Thing) -> None:
        line = {"id": thing.id, "instance": thing.instance, "late": round(thing.overdue)}
        try:
            if not self._settings.dry_run:
                self._ask("DELETE", self._url(quote(thing.id), kind, kind.more))
            self._tell("ended", kind.name, **line)
        except Exception as error:  # noqa: BLE001 - the others are not held back
            if isinstance(error, Refused) and error.status == 404:
                return
            self.denied |= kind is KINDS[0] and isinstance(error, Refused) and error.status == 403
            what = "held" if isinstance(error, Refused) and error.busy else "failures"
            self._tell(what, kind.name, **line, error=_words(error))

    def _ask(self, method: str, url: str) -> Any:
        """One call; again where a failure says nothing of the next, after as long as it says."""
        for remaining in reversed(range(TRIES)):
            if self._clock() >= self._over:
                raise TimeoutError(f"{LONGEST:.0f} s are over; the next pass goes on")
            try:
                answer = self._send(method, url)
            except (OSError, http.client.HTTPException):
                if not remaining:
                    raise
                answer = Answer(503, None)
            if answer.status < 300:
                return answer.body
            wait = PAUSE if answer.wait is None else answer.wait
            passing = answer.status in (408, 429, 500, 502, 503, 504)
            if not (passing and remaining) or self._clock() + wait >= self._over:
                break
            self._sleep(wait)
        raise _refused(answer)

    def _tell(self, what: str, kind: str, **more: Any) -> None:
        self.lines[what].append({"kind": kind, **more})


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port. Azure's next pages name the port."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443}.get(parts.scheme)


def _refused(answer: Answer) -> Refused:
    error = answer.body.get("error") if isinstance(answer.body, Mapping) else None
    details = error if isinstance(error, Mapping) else {"message": answer.body or ""}
    return Refused(answer.status, str(details.get("code", "")), str(details.get("message", "")))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def guard(
    settings: Settings, send: Send, now: float, *, base: str = API, **more: Any
) -> dict[str, Any]:
    """One pass; what it did. `base`: of the API's paths."""
    made = Pass(settings, send, now, base, **more)
    made.run()
    return {
        "installation": settings.installation,
        "group": settings.group,
        "saw": made.saw,
        "denied": made.denied,
        "dry_run": settings.dry_run,
        **made.lines,
    }


def leave_sign(
    settings: Settings, headers: Mapping[str, str], now: float, *, base: str = API
) -> None:
    """Leave the time of a pass as a tag of the function's own group. Raises `Refused`, `OSError` or
    `http.client.HTTPException`."""
    where = f"/subscriptions/{quote(settings.subscription)}/resourceGroups/"
    where += f"{quote(settings.own_group)}/providers/Microsoft.Resources/tags/default"
    change = {"operation": "Merge", "properties": {"tags": {f"{TAG}last-pass": str(int(now))}}}
    url = f"{base}{where}?{urlencode({'api-version': TAGS})}"
    answer = request("PATCH", url, headers, json.dumps(change))
    if answer.status >= 300:
        raise _refused(answer)


# --- Azure's side --------------------------------------------------------------------------------


def request(method: str, url: str, headers: Mapping[str, str], body: str | None = None) -> Answer:
    """One HTTP request, with a JSON document or without. Redirects are answers like any other:
    a token follows none."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=TIMEOUT)
    try:
        more = {} if body is None else {"Content-Type": "application/json"}
        where = f"{parts.path}?{parts.query}"
        connection.request(method, where, body, headers={**headers, **more})
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        wait = answer.headers.get("Retry-After", "")
    finally:
        connection.close()
    try:
        document = json.loads(text) if text else None
    except ValueError:
        document = text
    return Answer(answer.status, document, float(wait) if wait.isdecimal() else None)


def token(environment: Mapping[str, str]) -> str:
    """The function's own identity, as its host tells it."""
    where = {"resource": API, "api-version": "2019-08-01"}
    shown = {"X-IDENTITY-HEADER": environment["IDENTITY_HEADER"]}
    answer = request("GET", f"{environment['IDENTITY_ENDPOINT']}?{urlencode(where)}", shown)
    if answer.status != 200:
        raise GuardFailed(f"no token: {_refused(answer)}")
    return str(answer.body["access_token"])


def run(
    settings: Settings, headers: Mapping[str, str], now: float, *, base: str = API, **more: Any
) -> str:
    """One pass, logged and signed. Raises `GuardFailed` after all was done that could
    be."""
    report = guard(settings, partial(request, headers=headers), now, base=base, **more)
    text = json.dumps(report)
    logging.getLogger("vmrunner").warning(text)  # a level that no host filters
    works = report["saw"] and not report["denied"]
    if settings.own_group and works and not settings.dry_run:
        leave_sign(settings, headers, now, base=base)
    if failures := report["failures"]:
        raise GuardFailed(f"{len(failures)} failures: {json.dumps(failures[:3])}")
    return text


def handler(environment: Mapping[str, str]) -> str:
    """One pass, with settings from the environment. Raises `GuardFailed`."""
    settings = Settings.read(environment)
    shown = {"Authorization": f"Bearer {token(environment)}"}
    return run(settings, shown, time.time(), base=API)


app = func.FunctionApp()


@app.function_name("guard")
@app.timer_trigger(arg_name="timer", schedule="0 */5 * * * *")
def invoked(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the host calls it by this name
    """The timer's entry point."""
    handler(os.environ)
