"""Names of people in the place of ids of tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.core.test_scheduling import build
from vmrunner.services import people


@pytest.mark.parametrize(
    ("actor", "name", "submitter"),
    [
        ("token:t-01", "me", "me"),
        ("token:t-01", "", "token:t-01"),
        ("oidc:https://issuer#repo:acme/app:ref:refs/heads/main", "",
         "repo:acme/app:ref:refs/heads/main"),
        ("oidc:https://issuer#248", "ada@example.org", "ada@example.org"),
        ("ada", "", "ada"),
        ("", "", ""),
    ],
)  # fmt: skip
def test_who_submitted_a_build(actor: str, name: str, submitter: str) -> None:
    assert people.who(replace(build("b-1"), actor=actor, actor_name=name)) == submitter
