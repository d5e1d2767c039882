"""Builds over HTTP: submitted, followed, read, ended."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.http_service import OTHERS, TENANT, Service, only, service
from tests.support.scripted_app import wait_until
from vmrunner.model import Principal, TokenQuota, TokenScope
from vmrunner.server import request_bodies
from vmrunner.server.client_leases import GAP, SubmitterWatch

API = "/api/v1"


def submit(client: httpx2.Client, *lines: str, **more: Any) -> dict[str, Any]:
    return only(client.post(f"{API}/builds", json={"steps": ["\n".join(lines)], **more}))


def events(text: str) -> list[tuple[str, str, Any]]:
    """Kind, id and data of server-sent events."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line[:12])
        if "data" in fields:
            found.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
    return found


def test_an_allow_list_is_shown_as_it_was_asked(http: Service) -> None:
    client = http.client()
    allow = {"allow": ["packages.example.org", "*.example.net:8443"]}
    build = submit(client, "say one", network=allow)["id"]
    http.ended(build)
    shown = only(client.get(f"{API}/builds/{build}"))
    assert (shown["result"], shown["network"]) == ("success", allow)
    assert submit(client, "say one", network="none")["network"] == "none"
    answer = client.post(f"{API}/builds", json={"steps": ["a"], "network": {"allow": ["10.0.0.1"]}})
    assert answer.status_code == 422
    assert "'10.0.0.1' is an address" in answer.text


def test_a_build_is_submitted_followed_and_read(http: Service) -> None:
    client = http.client()
    answer = client.post(
        f"{API}/builds",
        json={"steps": ["say one\nsay two\nartifact out/a.txt hello"], "artifacts": ["out/*"]},
    )
    assert answer.status_code == 201
    build = only(answer)["id"]
    assert answer.headers["location"] == f"{API}/builds/{build}"
    http.ended(build)
    shown = only(client.get(f"{API}/builds/{build}"))
    assert (shown["result"], shown["exit_code"], shown["start"]) == ("success", 0, "cold")
    assert [vm["id"] for vm in shown["instances"]] == [shown["instance"]]
    assert client.get(f"{API}/builds/{build}/logs").content == b"one\ntwo\n"
    listed = client.get(f"{API}/builds/{build}/artifacts").json()["items"]
    assert listed == [{"path": "out/a.txt", "size": 5}]
    file = client.get(f"{API}/builds/{build}/artifacts/out/a.txt")
    assert file.content == b"hello"
    assert file.headers["content-type"] == "application/octet-stream"
    assert file.headers["content-disposition"].startswith("attachment")
    assert file.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in file.headers["content-security-policy"]


def test_the_documents_are_those_of_the_command_line(http: Service) -> None:
    from vmrunner.cli.output import json_envelope
    from vmrunner.services import people
    from vmrunner.services.documents import build_document

    client = http.client()
    build = submit(client, "say x", labels={"team": "a"})["id"]
    (row,) = people.named(http.app.ledger, [http.ended(build)._row])
    start = http.app.ledger.instances.get(str(row.instance)).start
    printed = json_envelope("build", [build_document(row, start) | {"waiting": None}])
    assert client.get(f"{API}/builds").json() == json.loads(printed)


@pytest.mark.parametrize(
    ("byte_range", "part"),
    [
        ("bytes=0-3", b"one\n"),
        ("bytes=4-", b"two\nthree"),
        ("bytes=-5", b"three"),
        ("bytes=2-5", b"e\ntw"),
        ("bytes=0-999", b"one\ntwo\nthree"),
    ],
)
def test_a_part_of_the_log_is_read_by_range(http: Service, byte_range: str, part: bytes) -> None:
    client = http.client()
    build = submit(client, "hex 6f6e650a74", "hex 776f0a", "hex 7468726565")["id"]
    http.ended(build)
    answer = client.get(f"{API}/builds/{build}/logs", headers={"Range": byte_range})
    assert (answer.status_code, answer.content) == (206, part)
    assert answer.headers["content-range"].endswith("/13")


@pytest.mark.parametrize(
    "byte_range", ["bytes=13-", "bytes=5-4", "bytes=-", "lines=1-2", "bytes=0-1,3-4"]
)
def test_a_range_that_cannot_be_is_told(http: Service, byte_range: str) -> None:
    client = http.client()
    build = submit(client, "hex 6f6e650a74776f0a7468726565")["id"]
    http.ended(build)
    answer = client.get(f"{API}/builds/{build}/logs", headers={"Range": byte_range})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */13")


def test_lines_stream_whole_and_go_on_after_the_last_id(http: Service, tmp_path: Path) -> None:
    client = http.client()
    go = tmp_path / "go"
    build = submit(client, "say one", "hex 74", f"until {go}", "hex 776f0aff")["id"]
    http.runner._host.ensure("fake")
    with client.stream(
        "GET", f"{API}/builds/{build}/logs", headers={"Accept": "text/event-stream"}
    ) as stream:
        text = ""
        for piece in stream.iter_text():
            text += piece
            if "one" in text and not go.exists():
                assert "tw" not in text, "a line is sent when it is whole"
                go.touch()
    found = events(text)
    assert [(kind, name) for kind, name, _ in found] == [
        ("line", "1"), ("line", "2"), ("line", "3"), ("end", ""),
    ]  # fmt: skip
    assert [data["text"] for _, _, data in found[:3]] == ["one", "two", "�"]
    assert found[3][2]["result"] == "success"
    again = client.get(
        f"{API}/builds/{build}/logs", headers={"Accept": "text/event-stream", "Last-Event-ID": "2"}
    )
    assert [name for _, name, _ in events(again.text)] == ["3", ""]


def test_events_stream_to_the_end(http: Service) -> None:
    client = http.client()
    build = submit(client, "exit 3")["id"]
    http.runner._host.ensure("fake")
    found = events(client.get(f"{API}/builds/{build}/events").text)
    assert [name for _, name, _ in found[:-1]] == [str(n + 1) for n in range(len(found) - 1)]
    assert {"step_started", "step_ended", "phase"} <= {kind for kind, _, _ in found}
    assert (found[-1][0], found[-1][2]["exit_code"]) == ("end", 3)
    listed = client.get(f"{API}/builds/{build}/events", headers={"Accept": "application/json"})
    assert len(listed.json()["items"]) >= len(found) - 1


def test_a_cancelled_build_ends_and_says_who(http: Service) -> None:
    client = http.client()
    build = submit(client, "sleep 600")["id"]
    http.runner._host.ensure("fake")
    wait_until(lambda: http.app.ledger.builds.get(build).state.value == "running")
    assert only(client.post(f"{API}/builds/{build}/cancel"))["cancel"] == "user"
    assert http.ended(build).result == "cancelled"
    cancels = [e for e in http.app.ledger.events.list(build) if e.kind == "cancel"]
    assert str(cancels[0].data["by"]).startswith("token:t-")


def test_each_answer_names_the_submitter(http: Service) -> None:
    """`t` is the token's name."""
    client = http.client()
    made = submit(client, "sleep 60")
    sandbox = only(client.post(f"{API}/sandboxes", json={}))
    answers = [made, sandbox]
    answers += [only(client.get(f"{API}/{word}")) for word in ("sandboxes", f"builds/{made['id']}")]
    answers += [only(client.get(f"{API}/sandboxes/{sandbox['id']}"))]
    answers += [only(client.delete(f"{API}/sandboxes/{sandbox['id']}"))]
    answers += [only(client.post(f"{API}/builds/{made['id']}/cancel"))]
    http.ended(made["id"])
    answers += [only(client.post(f"{API}/builds/{made['id']}/remove"))]
    assert [answer["actor_name"] for answer in answers] == ["t"] * len(answers)


def test_a_repeated_submission_shows_how_it_started(http: Service) -> None:
    client = http.client()
    made = submit(client, "say one", idempotency_key="k")
    http.ended(made["id"])
    again = submit(client, "say one", idempotency_key="k")
    assert (again["id"], again["start"]) == (made["id"], "cold")


def test_pages_of_builds_are_whole_and_apart(http: Service) -> None:
    client = http.client()
    made = [submit(client, "say x", labels={"n": str(n)})["id"] for n in range(5)]
    seen: list[str] = []
    page: dict[str, Any] = {"next": None}
    while "next" in page:
        after = {"after": page["next"]} if page["next"] else {}
        page = client.get(f"{API}/builds", params={"limit": 2, **after}).json()
        seen += [build["id"] for build in page["items"]]
    assert seen == made[::-1]
    assert [
        b["id"] for b in client.get(f"{API}/builds", params={"label": "n=3"}).json()["items"]
    ] == [made[3]]
    queued = client.get(f"{API}/builds", params={"state": "queued"}).json()["items"]
    assert [b["id"] for b in queued] == made[::-1]
    assert all("no engine" in b["waiting"] for b in queued)


# --- sources -------------------------------------------------------------------------------------


def tar(**files: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


def test_an_uploaded_source_is_its_builds_source(http: Service) -> None:
    client = http.client()
    packed = tar(a="1")
    answer = client.put(f"{API}/sources", content=packed)
    digest = answer.json()["digest"]
    assert (answer.status_code, digest) == (201, f"sha256:{hashlib.sha256(packed).hexdigest()}")
    build = submit(client, "say x", source=digest)
    assert build["source"] == digest
    fetched = http.app.sources().fetch(http.app.ledger.builds.get(build["id"]))
    assert fetched is not None
    assert fetched.read_bytes() == packed


@pytest.mark.parametrize("theirs", OTHERS)
def test_another_tenants_digest_names_nothing(http: Service, theirs: dict[str, str]) -> None:
    mine, other = http.tenant(team="a"), http.tenant(**theirs)
    digest = mine.put(f"{API}/sources", content=b"x").json()["digest"]
    answer = other.post(f"{API}/builds", json={"steps": ["x"], "source": digest})
    assert answer.status_code == 404
    assert http.app.ledger.builds.list() == []


def test_a_source_is_built_again_for_its_tenant_alone(http: Service) -> None:
    mine, whole = http.tenant(team="a"), http.client()
    digest = mine.put(f"{API}/sources", content=tar(a="1")).json()["digest"]
    first = submit(mine, "say x", source=digest)["id"]
    again = only(mine.post(f"/builds/{first}/again"))
    assert (again["source"], again["labels"]) == (digest, {"team": "a"})
    refused = whole.post(f"/builds/{first}/again")
    assert (refused.status_code, refused.json()["error"]) == (403, "NotAllowed")
    assert "the tenant team=a uploaded it" in refused.json()["detail"]
    assert "that tenant" in refused.json()["fix"]
    plain = submit(mine, "say x")["id"]
    assert only(whole.post(f"/builds/{plain}/again"))["labels"] == {"team": "a"}
    local = http.runner.submit("say x", source=str(http.root)).id
    assert "a user of the ledger itself" in whole.post(f"/builds/{local}/again").json()["detail"]
    assert len(http.app.ledger.builds.list()) == 5


def test_a_broken_or_too_large_upload_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with service(tmp_path, limits={"source_bytes": "1KiB"}) as http:
        client = http.client()
        answer = client.put(f"{API}/sources", content=b"x" * 2000)
        assert answer.status_code == 413

        def broken() -> Iterator[bytes]:
            yield b"x" * 100
            raise OSError("the client breaks off")

        with pytest.raises(OSError, match="breaks off"):
            client.put(f"{API}/sources", content=broken())
        wait_until(lambda: not list(http.app.paths.sources.iterdir()))
        assert http.app.ledger.objects.page("") == []


def test_four_uploads_of_one_token_are_under_way_at_most(http: Service) -> None:
    slots = http.listener.app.state.upload_slots
    client = http.client()
    token = http.app.ledger.tokens.list()[-1]
    for _ in range(4):
        slots.take(Principal.of(token))
    assert client.put(f"{API}/sources", content=b"x").status_code == 429
    slots.give_back(Principal.of(token))
    assert client.put(f"{API}/sources", content=b"x").status_code == 201


def test_a_full_disk_takes_no_upload(http: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmrunner.services.uploads.ROOM", 1 << 60)
    answer = http.client().put(f"{API}/sources", content=b"x")
    assert (answer.status_code, answer.json()["error"]) == (507, "NoRoom")


def test_a_body_that_comes_too_slowly_is_given_up(
    http: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_bodies, "BODY_PATIENCE", 0.2)
    connection = HTTPConnection("127.0.0.1", http.listener.port, timeout=20)
    connection.putrequest("PUT", f"{API}/sources")
    connection.putheader("Authorization", f"Bearer {http.token()}")
    connection.putheader("Content-Length", "10")
    connection.endheaders(b"x")
    assert connection.getresponse().status == 408
    connection.close()
    wait_until(lambda: not list(http.app.paths.sources.iterdir()))


# --- foreground builds, quotas --------------------------------------------------------------------


def looking(http: Service, build: str) -> Callable[[float], str | None]:
    """A node that looks for clients at such times of its own; the wish that came of it."""
    clock = [0.0]
    watch = SubmitterWatch(http.parts, lambda: clock[0])

    def at(now: float) -> str | None:
        clock[0] = now
        watch.look()
        cancel = http.app.ledger.builds.get(build).cancel
        return cancel.value if cancel else None

    return at


def test_a_foreground_build_ends_with_its_client(http: Service) -> None:
    client = http.client()
    build = submit(client, "sleep 600", foreground=True)["id"]
    at = looking(http, build)
    assert [at(now) for now in (0.0, 15.0, 30.0, 45.0, 60.0)] == [None] * 5
    assert client.post(f"{API}/builds/{build}/lease").json() == {"seconds": 60.0}
    assert [at(now) for now in (75.0, 90.0, 105.0, 120.0, 135.0)] == [None] * 5
    assert at(136.0) == "owner_gone"


def test_time_without_a_server_does_not_count(http: Service) -> None:
    build = submit(http.client(), "sleep 600", foreground=True)["id"]
    at = looking(http, build)
    assert at(0.0) is None
    assert at(50.0 + GAP) is None, "no server answered for so long: nobody could renew it"
    assert at(65.0 + GAP) is None


@pytest.mark.parametrize("ahead", [-100_000.0, -70.0, 70.0, 100_000.0])
def test_another_nodes_wrong_clock_ends_no_build(http: Service, ahead: float) -> None:
    client = http.client()
    build = submit(client, "sleep 600", foreground=True)["id"]
    at = looking(http, build)
    for n in range(20):
        http.clock[:] = [time.time() + (ahead if n % 2 else 0.0)]  # nodes take turns
        client.post(f"{API}/builds/{build}/lease")
        assert at(15.0 * n) is None


def test_a_build_of_the_ledger_has_no_lease(http: Service) -> None:
    client = http.client()
    build = submit(client, "say x")["id"]
    assert client.post(f"{API}/builds/{build}/lease").status_code == 404


def test_a_token_has_no_more_builds_than_its_quota(http: Service) -> None:
    quota = TokenQuota(builds=2, max_ttl=3600.0, providers=("fake",))
    client = http.client(http.token(TENANT, quota=quota))
    first = submit(client, "say x")["id"]
    submit(client, "say x")
    refused = client.post(f"{API}/builds", json={"steps": ["say x"]})
    assert (refused.status_code, refused.json()["error"]) == (429, "QuotaUsedUp")
    assert len(http.app.ledger.builds.list()) == 2
    http.ended(first)
    submit(client, "say x")
    long = client.post(f"{API}/builds", json={"steps": ["say x"], "ttl": "2h"})
    assert (long.status_code, long.json()["error"]) == (403, "NotAllowed")


def test_the_labels_of_a_token_are_forced(http: Service) -> None:
    client = http.tenant(team="a")
    build = submit(client, "say x", labels={"more": "1"})
    assert build["labels"] == {"team": "a", "more": "1"}
    refused = client.post(f"{API}/builds", json={"steps": ["x"], "labels": {"team": "b"}})
    assert refused.status_code == 403
    assert "team=a" in refused.json()["detail"]


@pytest.mark.parametrize("theirs", OTHERS)
def test_an_idempotency_key_is_its_tenants(http: Service, theirs: dict[str, str]) -> None:
    mine, other = http.tenant(team="a"), http.tenant(**theirs)
    first = submit(mine, "say x", idempotency_key="k")
    again = mine.post(f"{API}/builds", json={"steps": ["say x"], "idempotency_key": "k"})
    assert (again.status_code, only(again)["id"]) == (200, first["id"])
    assert submit(other, "say x", idempotency_key="k")["id"] != first["id"]
    assert http.app.ledger.builds.get(first["id"]).actor.startswith("token:")


def test_scopes_that_a_token_lacks_are_told(http: Service) -> None:
    reads = http.client(http.token(frozenset({TokenScope.READ})))
    refused = reads.post(f"{API}/builds", json={"steps": ["x"]})
    assert refused.status_code == 403
    assert "submit" in refused.json()["detail"]


def test_any_node_serves_what_another_drives(http: Service, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with service(tmp_path) as other:  # of the same ledger, with no engine and a clock of its own
        other.clock[:] = [time.time() + 3000]
        token = http.token(TENANT, labels={"team": "a"})
        here, elsewhere = http.client(token), other.client(token)
        build = submit(elsewhere, "say one", f"until {go}", "say two", foreground=True)["id"]
        http.runner._host.ensure("fake")
        here.post(f"{API}/builds/{build}/lease")
        SubmitterWatch(other.parts).look()
        with elsewhere.stream("GET", f"{API}/builds/{build}/events") as stream:
            go.touch()
            text = "".join(stream.iter_text())
        assert events(text)[-1][2]["result"] == "success", "a clock that is ahead ended nothing"
        assert elsewhere.get(f"{API}/builds/{build}/logs").content == b"one\ntwo\n"
        http.app.ledger.tokens.revoke(http.app.ledger.tokens.list()[-1].id, time.time())
        assert [c.get(f"{API}/builds").status_code for c in (here, elsewhere)] == [401, 401]
