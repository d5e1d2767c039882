"""The fake's answers of the REST API are such as GitHub's own OpenAPI document allows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import jwt
import pytest

from tests.support import fake_github
from tests.support.fake_github import FakeGithub
from vmrunner.providers.fake import Clock

DOCUMENT = json.loads((Path(__file__).parents[2] / "data/github_openapi.json").read_text())
RUNNERS = "/actions/runners/registration-token"
CALLS = {
    f"/orgs/{{org}}{RUNNERS}": f"/orgs/acme{RUNNERS}",
    f"/repos/{{owner}}/{{repo}}{RUNNERS}": f"/repos/acme/app{RUNNERS}",
    f"/enterprises/{{enterprise}}{RUNNERS}": f"/enterprises/big{RUNNERS}",
    "/app/installations/{installation_id}/access_tokens": "/app/installations/7/access_tokens",
}


def test_the_cut_document_has_what_is_asked() -> None:
    assert DOCUMENT["paths"].keys() == CALLS.keys()


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("proved", [True, False])
def test_an_answer_is_of_the_documented_shape(path: str, *, proved: bool) -> None:
    clock = Clock()
    github = FakeGithub(clock)
    proof: dict[str, Any] = {"iss": "7", "iat": int(clock()), "exp": int(clock()) + 300}
    token = fake_github.TOKEN
    if "installations" in path:
        proof["exp"] += 0 if proved else 3600
        token = jwt.encode(proof, "k" * 32, algorithm="HS256")
    headers = {"Authorization": f"Bearer {token if proved or 'install' in path else 'wrong'}"}
    with httpx2.Client(transport=github.transport()) as client:
        answer = client.post(fake_github.API + CALLS[path], headers=headers)
    answers = DOCUMENT["paths"][path]["post"]["responses"]
    if not proved:
        assert answer.status_code == 401
        return
    assert str(answer.status_code) in answers
    schema = answers[str(answer.status_code)]["content"]["application/json"]["schema"]
    jsonschema.validate(answer.json(), schema)
