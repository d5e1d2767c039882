"""VMs beside what the clouds show, from documents."""

from __future__ import annotations

import time

from vmrunner.model import TAG, Instance, Kind, Power, Ref, Resource, Scope
from vmrunner.services.client import decoding
from vmrunner.services.client.decoding import Document
from vmrunner.services.fleet import Fleet, FleetVm


def fleet(answer: Document) -> Fleet:
    """Decode VMs beside what the clouds show. Of a cloud's thing that no row names the id is told,
    not the tags."""
    here = time.time()
    vms = [FleetVm(_row(item), here, _resource(item)) for item in answer["items"]]
    return Fleet(vms=vms, unread=tuple(answer.get("unread", ())))


def _row(document: Document) -> Instance | None:
    return None if document["state"] is None else decoding.instance(document)


def _resource(document: Document) -> Resource | None:
    seen = document["cloud"]
    if seen is None:
        return None
    tags = {f"{TAG}instance": document["id"]}
    if (end := decoding.moment(seen["expires_at"])) is not None:
        tags[f"{TAG}expires-at"] = str(int(end))
    return Resource(
        ref=Ref(Scope.parse(seen["scope"]), Kind(seen["kind"]), seen["ref"]),
        power=Power(seen["power"]),
        created_at=decoding.moment(seen["created_at"]),
        tags=tags,
    )
