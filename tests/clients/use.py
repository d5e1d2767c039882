"""Use of the API by a client that openapi-python-client made of its document. Beside the generated
package: `use.py URL TOKEN`. Types are all told: `mypy --strict` holds this file too."""

from __future__ import annotations

import json
import sys
from typing import TypeVar

from vmrunner_client import AuthenticatedClient
from vmrunner_client.api.builds import cancel_build, list_builds, show_build, submit_build
from vmrunner_client.api.logs import read_chunks, read_events, read_log
from vmrunner_client.models import (
    BuildBody,
    BuildBodyLabels,
    BuildDocument,
    BuildPage,
    BuildState,
    CancelBody,
    Problem,
    Result,
    SpecPage,
)
from vmrunner_client.types import UNSET, Response, Unset

T = TypeVar("T")


def of(answer: Response[T | Problem]) -> T:
    """The document of an answer that went well."""
    if answer.parsed is None or isinstance(answer.parsed, Problem):
        raise SystemExit(f"{answer.status_code}: {answer.content!r}")
    return answer.parsed


def submitted(client: AuthenticatedClient, *steps: str, key: str | Unset = UNSET) -> BuildDocument:
    labels = BuildBodyLabels()
    labels["from"] = "python"
    body = BuildBody(steps=list(steps), labels=labels)
    page = submit_build.sync(client=client, body=body, idempotency_key=key)
    assert isinstance(page, BuildPage), page
    return page.items[0]


def followed(client: AuthenticatedClient, build: BuildDocument) -> BuildDocument:
    """Wait for its end, without a look that shows nothing new."""
    while build.state is not BuildState.FINISHED:
        of(read_chunks.sync_detailed(build.id, client=client, wait=True))
        page = of(show_build.sync_detailed(build.id, client=client))
        assert isinstance(page, BuildPage)
        build = page.items[0]
    return build


def main(url: str, token: str) -> None:
    client = AuthenticatedClient(base_url=url, token=token, raise_on_unexpected_status=True)
    with client:
        first = submitted(client, "hex 6f6e650a", "exit 3", key="k-1")
        assert submitted(client, "hex 6f6e650a", "exit 3", key="k-1").id == first.id
        ended = followed(client, first)
        page = of(list_builds.sync_detailed(client=client, label=["from=python"]))
        assert isinstance(page, BuildPage)
        listing = client.with_headers({"Accept": "application/json"})  # else they come as a stream
        events = of(read_events.sync_detailed(first.id, client=listing))
        second = submitted(client, "wait")
        body = CancelBody.from_dict({"reason": "user"})
        cancelled = of(cancel_build.sync_detailed(second.id, client=client, body=body))
        checked = submit_build.sync(client=client, body=BuildBody(["x"]), dry_run=True)
        wrong = show_build.sync("b-nope", client=client)
        assert isinstance(wrong, Problem)
        report = {
            "result": ended.result is Result.FAILURE,
            "exit_code": ended.exit_code,
            "failed_step": ended.failed_step,
            "log": of(read_log.sync_detailed(first.id, client=client)),
            "listed": [build.id == first.id for build in page.items],
            "events": events.items[0].kind,
            "cancel": cancelled.items[0].cancel,
            "end": followed(client, second).result,
            "dry": isinstance(checked, SpecPage),
            "problem": [wrong.status, wrong.error, wrong.fix],
        }
        print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
