"""The OpenAPI document: what a client that is made of it has to know."""

from __future__ import annotations

import jsonschema

from tests.support.http_service import Service

API = "/api/v1"
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def test_the_document_tells_of_tokens_and_problems(http: Service) -> None:
    client = http.client()
    document = client.get(f"{API}/openapi.json").json()
    schemas = document["components"]["schemas"]
    (name,) = document["components"]["securitySchemes"]
    assert document["security"] == [{name: []}]
    assert document["paths"][f"{API}/token"]["post"]["security"] == [], "it needs none"
    for path, item in document["paths"].items():
        for operation in item.values():
            told = operation["responses"]
            assert ("422" in told, told["default"]["content"]) == (False, PROBLEM), path
    for said in ({}, {"steps": 5, "timeot": 1}, {"steps": ["x"], "name": "../x"}):
        answer = client.post(f"{API}/builds", json=said)
        assert answer.headers["content-type"] in PROBLEM
        jsonschema.validate(answer.json(), schemas["Problem"])
    assert not any("ValidationError" in name for name in schemas)
