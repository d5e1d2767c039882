"""The guard of an Azure resource group beside a played Azure: what it ends, what it leaves, what it
tells, and for how long it tries."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from deploy.azure.guard import function_app as guard
from tests.support.fake_arm import BASE, GROUP, SUBSCRIPTION, TYPES, ArmFront, FakeArm, refusal
from vmrunner.config.settings import LimitSettings
from vmrunner.model import TAG, Role

INSTALLATION: Final = "00000000-0000-4000-8000-000000000001"
FOREIGN: Final = "00000000-0000-4000-8000-00000000000f"
GRACE: Final = guard.GRACE
NOW: Final = 1_800_000_000.0
MAX_TTL: Final = 14_400.0
ROLES: Final = Path(__file__).parents[3] / "deploy/azure/roles"


class Clock:
    """Seconds that pass while somebody sleeps, and with each look."""

    def __init__(self, look: float = 0.0) -> None:
        self.time = 0.0
        self.slept: list[float] = []
        self._look = look

    def __call__(self) -> float:
        self.time += self._look
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


@pytest.fixture
def arm() -> FakeArm:
    return FakeArm()


def sweep(arm: FakeArm, clock: Clock | None = None, **more: Any) -> dict[str, Any]:
    clock = clock or Clock()
    values = {
        "installation": INSTALLATION,
        "subscription": SUBSCRIPTION,
        "group": GROUP,
        "max_ttl": MAX_TTL,
    }
    settings = guard.Settings(**{**values, **more})
    return guard.guard(settings, arm.send, NOW, base=BASE, clock=clock, sleep=clock.sleep)


def tagged(late: float = GRACE + 1, **more: str) -> dict[str, str]:
    """The tags of something that is so many seconds past its deadline."""
    values = {"installation": INSTALLATION, "role": "build", "instance": "vm-1", **more}
    values.setdefault("expires_at", str(int(NOW - late)))
    return {f"vmrunner:{key.replace('_', '-')}": value for key, value in values.items()}


#: Past its deadline whatever the clock here says.
LONG_AGO: Final = tagged(expires_at="1000000000")


def names(report: dict[str, Any], what: str = "ended") -> set[str]:
    return {line["id"].rpartition("/")[2] for line in report[what]}


def test_of_everything_only_what_is_ours_and_expired_ends(arm: FakeArm) -> None:
    wanted, others = set(), set()
    mixes = itertools.product(
        (INSTALLATION, FOREIGN, "", INSTALLATION + "0"),
        ("build", "image", "pool", "guard", "BUILD", ""),
        (GRACE + 1, GRACE),
        TYPES,
    )
    for number, (whose, role, late, kind) in enumerate(mixes):
        name = f"{kind}-{number}"
        arm.put(kind, name, tagged(late, installation=whose, role=role))
        ends = whose == INSTALLATION and role in ("build", "pool", "image") and late > GRACE
        (wanted if ends else others).add(name)
    for kind in TYPES:
        arm.put(kind, f"{kind}-plain", {})
        others.add(f"{kind}-plain")
    report = sweep(arm)
    assert report["failures"] == []
    assert names(report) == wanted
    assert arm.names == others


def test_a_tag_without_tags_or_with_null_is_nobodys(arm: FakeArm) -> None:
    identity = arm.put("disk", "disk-1", {})
    arm.things[identity.lower()]["tags"] = None
    report = sweep(arm)
    assert (report["ended"], report["failures"]) == ([], [])


def test_names_of_tags_have_no_case_as_in_azure(arm: FakeArm) -> None:
    arm.put("instance", "vm-1", {name.title(): value for name, value in tagged().items()})
    assert names(sweep(arm)) == {"vm-1"}


def test_vms_end_by_force_and_what_is_used_waits(arm: FakeArm) -> None:
    machine = arm.put("instance", "vm-1", tagged())
    for kind in ("interface", "address", "disk"):
        arm.put(kind, f"{kind}-used", tagged(), used=machine)
        arm.put(kind, f"{kind}-free", tagged())
    report = sweep(arm)
    assert report["failures"] == []
    assert arm.names == {"interface-used", "address-used", "disk-used"}
    forced = {path: query.get("forceDeletion") for method, path, query in arm.requests
              if method == "DELETE"}  # fmt: skip
    assert forced.pop(machine) == "true"
    assert set(forced.values()) == {None}


def test_a_dry_run_tells_and_ends_nothing(arm: FakeArm) -> None:
    arm.put("instance", "vm-1", tagged())
    report = sweep(arm, dry_run=True)
    assert (names(report), report["dry_run"]) == ({"vm-1"}, True)
    assert arm.names == {"vm-1"}


@pytest.mark.parametrize("text", ["", "soon", "-1", "1e9", "9" * 13, "१७"])
def test_where_the_tag_cannot_be_read_the_age_alone_tells(arm: FakeArm, text: str) -> None:
    for kind in TYPES:
        arm.put(kind, f"{kind}-1", tagged(expires_at=text), created_at=NOW - 3000)
    ageless = {"interface-1", "address-1"}
    report = sweep(arm)
    assert (names(report), names(report, "unreadable")) == (set(), ageless)
    assert names(sweep(arm, max_ttl=None), "unreadable") == {f"{kind}-1" for kind in TYPES}
    assert names(sweep(arm, max_ttl=1000)) == {"instance-1", "disk-1", "snapshot-1"}
    assert arm.names == ageless


@pytest.mark.parametrize(
    ("tag", "today", "life"),
    [("7200", 3600, 7200), ("7200", None, 7200), ("", 3600, 3600), ("2h", 3600, 3600)],
)
def test_without_a_deadline_the_limit_at_birth_counts(
    arm: FakeArm, tag: str, today: float | None, life: int
) -> None:
    tags = tagged(expires_at="soon", max_ttl=tag)
    arm.put("instance", "waits", tags, created_at=NOW - life - GRACE)
    arm.put("instance", "ends", tags, created_at=NOW - life - GRACE - 1)
    assert names(sweep(arm, max_ttl=today)) == {"ends"}


def test_a_lowered_limit_ends_nothing_promised_before(arm: FakeArm) -> None:
    arm.put("instance", "vm-1", tagged(late=GRACE), created_at=NOW - 20_000)
    assert names(sweep(arm, max_ttl=60)) == set()


def test_any_installation_where_it_is_told_so(arm: FakeArm) -> None:
    arm.put("instance", "mine", tagged())
    arm.put("instance", "theirs", tagged(installation=FOREIGN))
    arm.put("instance", "nobodys", tagged(installation=""))
    assert names(sweep(arm, installation="*")) == {"mine", "theirs"}


# --- trouble -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
def test_an_unreadable_kind_holds_no_other_back(arm: FakeArm, kind: str) -> None:
    for other in TYPES:
        arm.put(other, f"{other}-1", tagged())
    denied = refusal(403, "AuthorizationFailed")
    arm.fate = lambda method, path: denied if path.endswith(TYPES[kind]) else None
    report = sweep(arm)
    assert names(report) == {f"{other}-1" for other in TYPES if other != kind}
    (failure,) = report["failures"]
    assert (failure["kind"], failure["error"]) == (kind, "Refused: 403 AuthorizationFailed:")


def test_one_that_may_not_be_ended_saves_no_other(arm: FakeArm) -> None:
    answers = {
        "locked": refusal(409, "ScopeLocked", "The scope cannot perform delete"),
        "limit": refusal(409, "OperationNotAllowed", "exceeding approved quota"),
        "attached": refusal(409, "OperationNotAllowed", "Disk d is attached to VM v"),
        "moving": refusal(409, "AnotherOperationInProgress"),
        "conflict": refusal(409, "Conflict"),
        "gone": refusal(404, "ResourceNotFound"),
        "cut": ConnectionResetError("by peer"),
        "plain": guard.Answer(400, "<html>"),
    }
    for name in (*answers, "well"):
        arm.put("disk", name, tagged())
    arm.fate = lambda method, path: (
        answers.get(path.rpartition("/")[2]) if method == "DELETE" else None
    )
    report = sweep(arm)
    assert names(report) == {"well"}
    assert names(report, "held") == {"attached", "moving", "conflict"}
    assert names(report, "failures") == {"locked", "limit", "cut", "plain"}


def test_every_page_is_read_and_a_failing_one_hides_none(arm: FakeArm) -> None:
    for number in range(8):
        arm.put("instance", f"vm-{number}", tagged())
    looks = itertools.count()
    arm.fate = lambda method, path: (
        refusal(403, "Gone") if method == "GET" and next(looks) == 2 else None
    )
    report = sweep(arm)
    assert names(report) == {f"vm-{number}" for number in range(6)}
    assert len(report["failures"]) == 1
    assert names(sweep(arm)) == {"vm-6", "vm-7"}


def test_a_next_page_elsewhere_gets_no_token(arm: FakeArm) -> None:
    arm.fate = lambda method, path: guard.Answer(
        200, {"value": [], "nextLink": f"{BASE}.example.com/x"}
    )
    report = sweep(arm)
    assert [line["kind"] for line in report["failures"]] == list(TYPES)
    assert "a next page elsewhere" in report["failures"][0]["error"]
    assert len(arm.requests) == len(TYPES)


def test_throttled_calls_wait_as_told_and_end(arm: FakeArm) -> None:
    arm.put("instance", "vm-1", tagged())
    fates = iter([refusal(429, "TooManyRequests", wait=7.0), OSError("cut"), None])
    arm.fate = lambda method, path: next(fates) if method == "DELETE" else None
    clock = Clock()
    report = sweep(arm, clock)
    assert (names(report), report["failures"]) == ({"vm-1"}, [])
    assert clock.slept == [7.0, guard.PAUSE]


def test_a_long_wait_is_left_to_the_next_pass(arm: FakeArm) -> None:
    for kind in TYPES:
        arm.put(kind, f"{kind}-1", tagged())
    arm.fate = lambda method, path: (
        refusal(429, "TooManyRequests", wait=600.0)
        if method == "DELETE" and "virtualMachines" in path
        else None
    )
    clock = Clock()
    report = sweep(arm, clock)
    assert names(report, "failures") == {"instance-1"}
    assert clock.slept == []
    assert names(report) == {f"{kind}-1" for kind in TYPES if kind != "instance"}


def test_what_fails_for_ever_is_asked_a_few_times(arm: FakeArm) -> None:
    identity = arm.put("instance", "vm-1", tagged())
    arm.fate = lambda method, path: refusal(500, "InternalError") if method == "DELETE" else None
    assert names(sweep(arm), "failures") == {"vm-1"}
    assert arm.calls("DELETE") == {identity: guard.TRIES}


def test_a_pass_comes_to_an_end(arm: FakeArm) -> None:
    for number in range(100):
        arm.put("instance", f"vm-{number}", tagged())
    clock = Clock(look=guard.LONGEST / 50)
    report = sweep(arm, clock)
    ended, failed = names(report), names({"failures": [
        line for line in report["failures"] if "id" in line]}, "failures")  # fmt: skip
    assert 0 < len(ended) < 50
    assert len(ended | failed) == 100
    assert len(arm.requests) <= 50
    assert all("the next pass goes on" in line["error"] for line in report["failures"])


# --- over HTTP -----------------------------------------------------------------------------------


@pytest.fixture
def front(arm: FakeArm, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment of a function whose Azure is a server here."""
    server = ArmFront(arm)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr(guard, "API", server.url)
    yield {
        "VMRUNNER_INSTALLATION": INSTALLATION,
        "VMRUNNER_SUBSCRIPTION": SUBSCRIPTION,
        "VMRUNNER_RESOURCE_GROUP": GROUP,
        "IDENTITY_ENDPOINT": f"{server.url}/msi/token",
        "IDENTITY_HEADER": "of-the-host",
    }
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_function_ends_with_its_own_identity(arm: FakeArm, front: dict[str, str]) -> None:
    for number in range(5):
        arm.put("instance", f"vm-{number}", LONG_AGO)
    arm.put("disk", "disk-1", tagged(expires_at="9" * 12))
    fates = iter([refusal(429, "TooManyRequests", wait=0.0)])
    arm.fate = lambda method, path: next(fates, None) if method == "DELETE" else None
    report = json.loads(guard.handler(front))
    assert names(report) == {f"vm-{number}" for number in range(5)}
    assert arm.names == {"disk-1"}


def test_a_failure_is_raised_after_all_else_was_done(arm: FakeArm, front: dict[str, str]) -> None:
    for name in ("vm-1", "vm-2"):
        arm.put("instance", name, LONG_AGO)
    arm.fate = lambda method, path: (
        refusal(409, "ScopeLocked") if method == "DELETE" and path.endswith("vm-1") else None
    )
    with pytest.raises(guard.GuardFailed, match=r"1 failures: .*ScopeLocked"):
        guard.handler(front)
    assert arm.names == {"vm-1"}


def test_without_a_token_nothing_is_asked(arm: FakeArm, front: dict[str, str]) -> None:
    with pytest.raises(guard.GuardFailed, match="no token: 401"):
        guard.handler({**front, "IDENTITY_HEADER": "of-somebody"})
    assert arm.requests == []


def test_the_role_of_the_guard_names_what_it_calls(arm: FakeArm) -> None:
    for kind in TYPES:
        arm.put(kind, f"{kind}-1", tagged())
    assert len(sweep(arm)["ended"]) == len(TYPES)
    verbs = {"GET": "read", "DELETE": "delete"}
    called = {
        f"{kind}/{verbs[method]}"
        for method, path, _ in arm.requests
        for kind in TYPES.values()
        if kind in path
    }
    role = json.loads((ROLES / "guard.json").read_text())
    assert role["Actions"] == sorted(called)


# --- settings, and the words that are shared -----------------------------------------------------

PLACE: Final = {
    "VMRUNNER_INSTALLATION": "x",
    "VMRUNNER_SUBSCRIPTION": "y",
    "VMRUNNER_RESOURCE_GROUP": "z",
}


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, "VMRUNNER_INSTALLATION: none"),
        ({**PLACE, "VMRUNNER_SUBSCRIPTION": " "}, "VMRUNNER_SUBSCRIPTION: none"),
        ({**PLACE, "VMRUNNER_RESOURCE_GROUP": ""}, "VMRUNNER_RESOURCE_GROUP: none"),
        ({**PLACE, "VMRUNNER_GRACE": "8m"}, "VMRUNNER_GRACE: '8m'"),
        ({**PLACE, "VMRUNNER_MAX_TTL": "-1"}, "VMRUNNER_MAX_TTL: '-1'"),
        ({**PLACE, "VMRUNNER_DRY_RUN": "no"}, "VMRUNNER_DRY_RUN: 'no'"),
    ],
)
def test_what_cannot_be_is_said(environment: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        guard.Settings.read(environment)


def test_settings_have_defaults_and_grace_may_be_none() -> None:
    settings = guard.Settings.read(PLACE)
    assert (settings.grace, settings.max_ttl, settings.dry_run) == (GRACE, None, False)
    assert guard.Settings.read({**PLACE, "VMRUNNER_GRACE": "0"}).grace == 0


def test_the_guard_and_vmrunner_use_the_same_words() -> None:
    assert guard.TAG == TAG
    assert set(guard.ROLES) == {role.value for role in Role} - {Role.GUARD.value}
    assert LimitSettings().max_ttl == MAX_TTL


def test_the_host_finds_one_timer_every_five_minutes() -> None:
    (made,) = guard.app.get_functions()
    assert made.get_function_name() == "guard"
    (trigger,) = made.get_bindings()
    binding = trigger.get_dict_repr()
    assert (binding["type"], binding["schedule"]) == ("timerTrigger", "0 */5 * * * *")
