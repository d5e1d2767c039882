"""`vmrunner token`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.command_line import Cli
from tests.support.http_service import TENANT, service

TOKEN = re.compile(rb"vmr_[\w-]{43}\n")


def test_a_token_is_alone_on_stdout_and_shown_once(cli: Cli) -> None:
    done = cli("token", "create", "ci", "--scope", "submit,read", "--label", "team=a")
    assert done.code == 0
    assert TOKEN.fullmatch(done.out)
    (row,) = cli("token", "ls", "-o", "json").items
    assert (row["name"], row["scopes"], row["labels"]) == ("ci", ["read", "submit"], {"team": "a"})
    assert (row["expires_at"], row["revoked_at"]) == (None, None)
    shown = cli("token", "ls").out
    assert b"valid" in shown
    assert done.out.strip() not in shown


def test_limits_are_the_tokens_own(cli: Cli) -> None:
    limits = ("--builds", "3", "--max-ttl", "1h", "--provider", "fake", "--expires", "30d")
    limits += ("--usd-per-day", "2.5", "--network", "allow=PyPI.org", "--no-docker")
    limits += ("--image", "ami-1", "--image", "ami-2")
    assert cli("token", "create", "ci", "--scope", "submit", *limits).code == 0
    (row,) = cli("token", "ls", "-o", "json").items
    assert row["quota"] == {
        "builds": 3, "max_ttl": 3600.0, "providers": ["fake"], "usd_per_day": 2.5,
        "network": {"allow": ["pypi.org"]}, "docker": False, "images": ["ami-1", "ami-2"],
    }  # fmt: skip
    assert row["expires_at"] is not None


def test_a_label_given_twice_alike_is_one(cli: Cli) -> None:
    same = ("--label", "team=a", "--label", "team=a", "--label", "os=b")
    assert cli("token", "create", "ci", "--scope", "read", *same).code == 0
    (row,) = cli("token", "ls", "-o", "json").items
    assert row["labels"] == {"os": "b", "team": "a"}


def test_a_revoked_token_is_told_so(cli: Cli) -> None:
    cli("token", "create", "ci", "--scope", "read")
    (row,) = cli("token", "ls", "-o", "json").items
    assert cli("token", "revoke", "ci").out.decode() == row["id"] + "\n"
    again = cli("token", "revoke", row["id"])
    assert (again.code, b"revoked before" in again.err) == (0, True)
    assert b"revoked" in cli("token", "ls").out
    assert cli("token", "revoke", "other").code == 3


def test_of_two_valid_tokens_the_name_revokes_none(cli: Cli) -> None:
    """Who believes that he revoked the one that leaked may have revoked the other."""
    for _ in range(2):
        cli("token", "create", "ci", "--scope", "read")
    first, second = (row["id"] for row in cli("token", "ls", "-o", "json").items)
    done = cli("token", "revoke", "ci")
    assert (done.code, done.out) == (5, b"")
    assert f"{first}, {second}".encode() in done.err
    assert cli("token", "revoke", first).code == 0
    assert cli("token", "revoke", "ci").out.decode() == second + "\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("ci", "--scope", "submt"), "did you mean 'submit'"),
        (("ci", "--scope", ","), "no scope ''"),
        (("ci", "--scope", "admin", "--label", "team=a"), "whatever the label"),
        (("ci", "--scope", "read", "--label", "team"), "team"),
        (
            ("ci", "--scope", "read", "--label", "team=a", "--label", "team=b"),
            "label: 'team' is given as 'a' and as 'b'",
        ),
        (("ci", "--scope", "read", "--expires", "0s"), "over at once"),
        (("ci", "--scope", "read", "--expires", "soon"), "30m"),
        (("ci", "--scope", "read", "--expires", "99999999999d"), "leave it out"),
        (("ci", "--scope", "read", "--usd-per-day", "inf"), "leave it out"),
        (("c i", "--scope", "read"), "name"),
        (("ci", "--scope", "read", "--provider", "fak"), "did you mean 'fake'"),
        (("ci",), "scope"),
    ],
)
def test_a_wrong_token_is_not_made(cli: Cli, argv: tuple[str, ...], words: str) -> None:
    done = cli("token", "create", *argv)
    assert (done.code, done.out) == (2, b"")
    assert words in done.err.decode()
    assert cli("token", "ls").out == b""


@pytest.mark.parametrize("token", ["", "vmr_wrong"])
def test_no_valid_token_exits_as_credentials_do(
    home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    with service(home / "server") as http:
        monkeypatch.setenv("VMRUNNER_SERVER", http.url)
        monkeypatch.setenv("VMRUNNER_TOKEN", token)
        assert [cli(*words).code for words in (("ps",), ("show", "b-1"), ("audit",))] == [4, 4, 4]
        assert cli("run", "--", "true").code == 125
        monkeypatch.setenv("VMRUNNER_TOKEN", http.token(TENANT, labels={"team": "a"}))
        assert cli("ps").code == 0
        assert cli("audit").code == 1, "a token that may not is another matter"
