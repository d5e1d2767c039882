"""Deletes, by what the API server answers to them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vmrunner.model import Fate, Kind, Ref, Scope
from vmrunner.providers.kubernetes import error_codes
from vmrunner.providers.kubernetes.delete import KubeDeleter

SCOPE = Scope("kubernetes", "uid-of-namespace", "vmrunner")
#: As BeforeDelete and the storage layer write them (kubernetes 1.34,
#: staging/src/k8s.io/apiserver/pkg/registry/rest/delete.go, pkg/storage/interfaces.go).
RECREATED = (
    'Operation cannot be fulfilled on secrets "vm-1": the UID in the precondition (u-1) does not '
    "match the UID in record (u-2). The object might have been deleted and then recreated"
)
STORED = (
    'Operation cannot be fulfilled on secrets "vm-1": StorageError: invalid object, Code: 4, '
    "AdditionalErrorMsg: Precondition failed: UID in precondition: u-1, UID in object meta: u-2"
)
WRITTEN = (
    'Operation cannot be fulfilled on secrets "vm-1": the object has been modified; please apply '
    "your changes to the latest version and try again"
)


class Answering:
    """A client to which each delete is a conflict with these words."""

    def __init__(self, words: str) -> None:
        self._words = words

    def delete(self, *_: Any, **__: Any) -> Any:
        body = {"kind": "Status", "reason": "Conflict", "message": self._words}
        raise error_codes.failed(409, json.dumps(body).encode(), action="DELETE", where="vm-1")


@pytest.mark.parametrize(
    ("words", "fate"),
    [(RECREATED, Fate.MISSING), (STORED, Fate.MISSING), (WRITTEN, Fate.FAILED)],
)
def test_only_another_uid_is_no_more_there(words: str, fate: Fate) -> None:
    client: Any = Answering(words)
    ref = Ref(scope=SCOPE, kind=Kind.SECRET, id="vm-1/u-1")
    outcomes = KubeDeleter(client, (), lambda: 0.0).delete([ref], force=False)
    assert outcomes[ref].fate is fate
