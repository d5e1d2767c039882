from __future__ import annotations

import httpx2

from vmrunner.api.remote_service import RemoteService
from vmrunner.services.client.http_client import ANSWER, LOOK


def test_who_asks_all_clouds_waits_longer_for_an_answer() -> None:
    """An account of thousands of VMs is not listed, nor emptied, within a minute."""
    waited: dict[str, float] = {}

    def answer(request: httpx2.Request) -> httpx2.Response:
        waited[request.url.path] = request.extensions["timeout"]["read"]
        return httpx2.Response(200, json={"items": [], "unread": []})

    service = RemoteService("http://server", "vmr_x")
    service.client._client = httpx2.Client(
        base_url="http://server", transport=httpx2.MockTransport(answer), timeout=ANSWER
    )
    service.reap()
    service.audit()
    service.fleet(gone=False, limit=1)
    service.caches()
    service.client.close()
    assert waited == {
        "/api/v1/reap": LOOK, "/api/v1/audit": LOOK, "/api/v1/instances": LOOK,
        "/api/v1/caches": ANSWER,
    }  # fmt: skip
