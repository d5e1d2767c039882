"""The API server's answers, as it writes them, in the core's terms."""

from __future__ import annotations

import json
import ssl

import pytest

from vmrunner.errors import (
    BadOrder,
    CredentialsRefused,
    NoCapacity,
    ProviderError,
    QuotaExceeded,
    Refused,
    Throttled,
    Uncertain,
)
from vmrunner.providers.kubernetes import error_codes
from vmrunner.providers.kubernetes.error_codes import TABLE

#: One answer for each line of the table, in its order: status, reason, message, error.
ANSWERS: list[tuple[int, str, str, type[ProviderError]]] = [
    (401, "Unauthorized", "Unauthorized", CredentialsRefused),
    (403, "Forbidden", 'pods "x" is forbidden: exceeded quota: q, used: pods=1', QuotaExceeded),
    (403, "Forbidden", 'pods "x" is forbidden: failed quota: q: must specify cpu', BadOrder),
    (403, "Forbidden", 'pods "x" is forbidden: pod rejected: RuntimeClass "k" not found', BadOrder),
    (403, "Forbidden", "unable to create in namespace n because it is being terminated", Refused),
    (403, "Forbidden", 'pods "x" is forbidden: violates PodSecurity "restricted"', BadOrder),
    (403, "Forbidden", 'admission webhook "kyverno" denied the request', BadOrder),
    (403, "Forbidden", 'pods "x" is forbidden: error looking up service account', Throttled),
    (403, "Forbidden", 'jobs.batch is forbidden: User "u" cannot create', CredentialsRefused),
    (403, "Forbidden", 'pods "x" is forbidden: minimum cpu usage per Container is 1', BadOrder),
    (403, "Forbidden", "no", CredentialsRefused),
    (404, "NotFound", 'namespaces "vmrunner" not found', BadOrder),
    (404, "NotFound", "the server could not find the requested resource", BadOrder),
    (404, "", "404 page not found", BadOrder),
    (404, "NotFound", 'jobs.batch "x" not found', BadOrder),
    (409, "AlreadyExists", 'jobs.batch "x" already exists', BadOrder),
    (409, "Conflict", 'Operation cannot be fulfilled on resourcequotas "q"', Throttled),
    (409, "Conflict", "Precondition failed: UID in precondition: a, UID in meta: b", BadOrder),
    (410, "Expired", "The provided continue parameter is too old", Uncertain),
    (413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728", BadOrder),
    (422, "Invalid", "requests: must be less than or equal to cpu limit of 50m", BadOrder),
    (422, "Invalid", 'Pod "x" is invalid: spec.activeDeadlineSeconds', BadOrder),
    (400, "BadRequest", 'strict decoding error: unknown field "spec.x"', BadOrder),
    (429, "TooManyRequests", "the server has received too many requests", Throttled),
    (500, "InsufficientCapacity", "no room", NoCapacity),
    (503, "ServiceUnavailable", "no endpoints available for service virt-api", Uncertain),
    (504, "Timeout", "request did not complete within the allotted timeout", Uncertain),
]


def failed(status: int, reason: str, message: str) -> error_codes.CallFailed:
    body = {"kind": "Status", "status": "Failure", "reason": reason, "message": message}
    text = json.dumps(body) if reason else message
    return error_codes.failed(status, text.encode(), action="POST", where="jobs", retry_after=7)


@pytest.mark.parametrize(("line", "answer"), list(zip(TABLE, ANSWERS, strict=True)))
def test_each_line_of_the_table_is_met(
    line: error_codes.AnswerMeaning, answer: tuple[int, str, str, type[ProviderError]]
) -> None:
    status, reason, message, error = answer
    assert (line.status, line.error) == (status, error)
    assert line.message in message
    found = failed(status, reason, message)
    assert type(found.error) is error
    assert found.error.hint == line.hint
    assert f"POST jobs: {status}" in str(found)


@pytest.mark.parametrize(
    "message",
    [
        "minimum memory usage per Container is 100Mi, but request is 64Mi",
        "no PriorityClass with name high was found",
        "pod node label selector conflicts with its namespace node label selector",
        "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
    ],
)
def test_what_admission_refuses_is_no_missing_right(message: str) -> None:
    """Else the provider would launch nothing for anybody, with a hint at a role that is there."""
    found = failed(403, "Forbidden", f'pods "vm-1" is forbidden: {message}').error
    assert type(found) is BadOrder
    assert "role.yaml" not in found.hint
    denied = 'pods "vm-1" is forbidden: User "u" cannot delete resource "pods"'
    assert type(failed(403, "Forbidden", denied).error) is CredentialsRefused


def test_what_no_line_tells_of_may_have_happened() -> None:
    for status, reason in ((500, "InternalError"), (503, "ServiceUnavailable"), (408, "Timeout")):
        assert type(failed(status, reason, "etcd has no leader").error) is Uncertain
    assert type(failed(405, "MethodNotAllowed", "not here").error) is BadOrder


def test_a_gateways_words_prove_nothing() -> None:
    """An answer that is no `Status` says neither that a thing is missing nor that it is there."""
    for status in (404, 409, 422, 400, 502):
        found = failed(status, "", "<html><body>nginx</body></html>")
        assert type(found.error) is Uncertain, status
        assert not error_codes.is_missing(found)
        assert "gateway" in str(found)


def test_a_missing_object_and_a_missing_kind_differ() -> None:
    gone = failed(404, "NotFound", 'jobs.batch "x" not found')
    no_kind = failed(404, "", "404 page not found\n")
    assert (error_codes.is_missing(gone), error_codes.is_unknown_kind(gone)) == (True, False)
    assert (error_codes.is_missing(no_kind), error_codes.is_unknown_kind(no_kind)) == (False, True)


def test_the_servers_wait_is_told() -> None:
    found = failed(429, "TooManyRequests", "slow down")
    assert isinstance(found.error, Throttled)
    assert found.error.wait == 7


def test_another_certificate_is_named_with_its_fix() -> None:
    cause = ssl.SSLCertVerificationError("certificate verify failed: self-signed certificate")
    outer = OSError("no connection")
    outer.__cause__ = cause
    found = error_codes.unanswered(outer, action="GET", where="pods")
    assert type(found.error) is Uncertain
    assert "certificate-authority" in found.error.hint
    assert not error_codes.unanswered(OSError("no route"), action="GET", where="pods").error.hint
