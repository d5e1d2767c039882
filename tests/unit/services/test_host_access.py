"""A job file is code that nobody has read: what of this machine it gets, and what needs leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmrunner.config import jobfile
from vmrunner.config.build_request import BuildRequest
from vmrunner.config.placed_faults import together
from vmrunner.errors import ConfigError
from vmrunner.services import requests
from vmrunner.services.host_access import HostAccess

ENVIRON = {"AWS_SECRET_ACCESS_KEY": "HOST-AWS-SECRET", "TOKEN": "hunter2"}
Ask = Callable[..., BuildRequest]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """The wish of a job with these keys, in a checkout beside which there is a private key."""
    checkout = tmp_path / "checkout"
    (checkout / "sub").mkdir(parents=True)
    (checkout / "ours").write_text("in the checkout\n")
    (checkout / "out").symlink_to("../private")
    (checkout / "within").symlink_to("ours")
    (tmp_path / "private").mkdir()
    (tmp_path / "private/id_rsa").write_text("HOST KEY\n")

    def checked_request(keys: str, flags: BuildRequest | None = None, **leave: Any) -> BuildRequest:
        file = checkout / "vmrunner.yml"
        file.write_text(f"jobs: {{test: {{steps: [make], {keys}}}}}")
        chosen = jobfile.choose(file, None)
        request = requests.from_job(chosen, ENVIRON, request=flags, allowed=HostAccess(**leave))
        if request.faults:
            raise together(request.faults)
        return request

    return checked_request


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("secrets: [AWS_SECRET_ACCESS_KEY]", "--allow-secret AWS_SECRET_ACCESS_KEY gives it"),
        ("secrets: ['K=@../private/id_rsa']", "'K=@../private/id_rsa': it is outside"),
        ("secrets: ['K=@/etc/passwd']", "'K=@/etc/passwd': it is outside"),
        ("secrets: ['K=@~/.ssh/id_rsa']", "it is outside the job file's directory"),
        ("secrets: ['K=@out/id_rsa']", "'K=@out/id_rsa': it is outside"),
        ("secrets: ['K=@sub']", "'K=@sub' is not a file"),
        ("source: ../private", "source: '../private': it is outside"),
        ("source: out", "source: 'out': it is outside"),
        ("source: 'https://github.com/x/y'", "git+https://github.com/x/y@REF"),
        ("source: /etc", "source: '/etc': it is outside"),
        ("source: 'git+/home/me/private'", "git fetches it as you (--allow-host-files allows it)"),
        ("source: 'git+ssh://git@host/private'", "git fetches it as you"),
    ],
)
def test_what_lies_outside_its_directory_needs_leave(ask: Ask, keys: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ask(keys)
    assert message in str(caught.value)
    assert "HOST" not in str(caught.value)


def test_what_lies_below_its_directory_needs_none(ask: Ask) -> None:
    request = ask("source: sub, secrets: ['A=@ours', 'B=@within', 'C=@sub/../ours']")
    assert request.secrets == dict.fromkeys("ABC", b"in the checkout")
    assert request.source is not None
    assert request.source.endswith("/checkout/sub")
    assert request.host_uses == ()
    assert ask("source: .").host_uses == ()


def test_what_is_allowed_is_taken_and_told(ask: Ask) -> None:
    request = ask(
        "source: ../private, secrets: [TOKEN, 'K=@out/id_rsa']",
        secrets=frozenset({"TOKEN"}),
        host_files=True,
    )
    assert request.secrets == {"TOKEN": b"hunter2", "K": b"HOST KEY"}
    assert request.host_uses == (
        "the source ../private",
        "the variable TOKEN",
        "the file K=@out/id_rsa",
    )
    with pytest.raises(ConfigError, match="'AWS_SECRET_ACCESS_KEY' is a variable of yours"):
        ask("secrets: [TOKEN, AWS_SECRET_ACCESS_KEY]", secrets=frozenset({"TOKEN"}))
    with pytest.raises(ConfigError, match="'TOKEN' is a variable of yours"):
        ask("secrets: [TOKEN]", host_files=True)


def test_what_the_command_line_gives_itself_is_not_the_jobs(ask: Ask) -> None:
    flags = BuildRequest(secrets={"TOKEN": b"given", "K": b"given"}, source="/given")
    request = ask("source: /etc, secrets: [TOKEN, 'K=@/etc/shadow']", flags)
    assert (request.secrets, request.source, request.host_uses) == ({}, None, ())
