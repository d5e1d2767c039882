"""The API server's answers in the core's terms: translated once, here.

An answer is an HTTP status and, where the server itself speaks, a `Status` with a `reason` and a
message. Quota is a `Forbidden` that only its message tells from a missing right.
"""

from __future__ import annotations

import json
import ssl
from typing import Any, Final, NamedTuple

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
from vmrunner.providers.common.call_failed import CallFailed, is_undecided, one_line


class AnswerMeaning(NamedTuple):
    """One line of the table: an answer of this status whose reason and message hold these words,
    is this error. Empty words hold always."""

    status: int
    reason: str
    message: str
    error: type[ProviderError]
    hint: str = ""


_ROLE: Final = "apply deploy/kubernetes/role.yaml in its namespace"
_TOKEN: Final = "renew the token, or the kubeconfig's user"  # noqa: S105 - it is advice
_UNLIMITED: Final = "let the ResourceQuota count requests alone, or a LimitRange set the limits"
_QUOTA: Final = "raise the namespace's ResourceQuota, or run fewer at once"
_MAKE: Final = "make the namespace: deploy/kubernetes/namespace.yaml"
_KUBEVIRT: Final = 'of VMs: install KubeVirt, or set runs = "pod"'
_LEVEL: Final = "label the namespace for `baseline`; launchers that are root need `privileged`"
_POLICY: Final = "let the cluster's admission policy admit vmrunner's namespace"
_RANGE: Final = "let the namespace's LimitRange have defaults above what vmrunner requests"
_ADMISSION: Final = "let admission take it: see LimitRanges, priority classes, policies"
_GOING: Final = "wait until the namespace is gone, then make it"
_SMALLER: Final = "make the build's environment smaller"
_CLASS: Final = "set runtime_class to one of `kubectl get runtimeclass`"
#: How an API server answers to a kind that it does not have.
_NO_KIND: Final = ("the server could not find the requested resource", "404 page not found")
UNKNOWN_KIND: Final = "UnknownKind"

#: The first line that fits is the one that counts.
TABLE: Final = (
    AnswerMeaning(401, "", "", CredentialsRefused, _TOKEN),
    AnswerMeaning(403, "", "exceeded quota", QuotaExceeded, _QUOTA),
    AnswerMeaning(403, "", "failed quota", BadOrder, _UNLIMITED),
    AnswerMeaning(403, "", "RuntimeClass", BadOrder, _CLASS),
    AnswerMeaning(403, "", "being terminated", Refused, _GOING),
    AnswerMeaning(403, "", "violates PodSecurity", BadOrder, _LEVEL),
    AnswerMeaning(403, "", "admission webhook", BadOrder, _POLICY),
    # A namespace that was just made gets its account in a moment.
    AnswerMeaning(403, "", "error looking up service account", Throttled),
    # The authorizer names who asks; an admission plugin names the object and its own reason.
    AnswerMeaning(403, "", 'is forbidden: User "', CredentialsRefused, _ROLE),
    AnswerMeaning(403, "", '" is forbidden: ', BadOrder, _ADMISSION),
    AnswerMeaning(403, "", "", CredentialsRefused, _ROLE),
    AnswerMeaning(404, "", "namespaces", BadOrder, _MAKE),
    AnswerMeaning(404, "", _NO_KIND[0], BadOrder, _KUBEVIRT),
    AnswerMeaning(404, "", _NO_KIND[1], BadOrder, _KUBEVIRT),
    AnswerMeaning(404, "NotFound", "", BadOrder),
    AnswerMeaning(409, "AlreadyExists", "", BadOrder),
    # The quota's own count was written by two at once: the same again will do.
    AnswerMeaning(409, "Conflict", "quota", Throttled),
    AnswerMeaning(409, "Conflict", "", BadOrder),
    AnswerMeaning(410, "", "", Uncertain),
    AnswerMeaning(413, "RequestEntityTooLarge", "", BadOrder, _SMALLER),
    # A LimitRange's default is the limit of what names none, be it below what that requests.
    AnswerMeaning(422, "Invalid", "must be less than or equal to", BadOrder, _RANGE),
    AnswerMeaning(422, "Invalid", "", BadOrder),
    AnswerMeaning(400, "BadRequest", "", BadOrder),
    AnswerMeaning(429, "", "", Throttled),
    # Nothing was born: the server never took it up.
    AnswerMeaning(500, "InsufficientCapacity", "", NoCapacity),
    AnswerMeaning(503, "", "no endpoints available", Uncertain, _KUBEVIRT),
    AnswerMeaning(504, "Timeout", "", Uncertain),
)
CERTIFICATE: Final = "the kubeconfig's certificate-authority must be that of this API server"


def failed(
    status: int, body: bytes, *, action: str, where: str, retry_after: float = 0.0
) -> CallFailed:
    """Translate an error answer to `action` on the object or list `where`."""
    document = _status(body)
    reason = str(document.get("reason") or "")
    message = one_line(str(document.get("message") or body.decode(errors="replace")))
    text = f"{action} {where}: {status} {reason}: {message}".replace(" : ", ": ")
    unknown_kind = status == 404 and any(words in message for words in _NO_KIND)
    code = UNKNOWN_KIND if unknown_kind else reason or str(status)
    line = _line(status, reason, message)
    if line is not None and line.error is Throttled:
        return CallFailed(code, Throttled(text, hint=line.hint, wait=retry_after))
    if line is not None:
        return CallFailed(code, line.error(text, hint=line.hint))
    # What is no `Status` may be a gateway's, which knows nothing of what was done.
    undecided = is_undecided(status) or not document
    return CallFailed(code, Uncertain(text) if undecided else BadOrder(text))


def refused_child(message: str) -> AnswerMeaning | None:
    """The meaning of a refusal that a controller of the cluster's met, as it tells of it; None: the
    cluster cannot say so of what was ordered, or it says nothing of a refusal."""
    for status, reason in ((403, "Forbidden"), (422, "Invalid")):
        if f" is {reason.lower()}: " in message:
            line = _line(status, reason, message)
            return line if line is not None and line.error in (BadOrder, QuotaExceeded) else None
    return None


def unanswered(error: Exception, *, action: str, where: str) -> CallFailed:
    """Translate a failure without an answer, or with one that cannot be read."""
    text = f"{action} {where}: {one_line(str(error)) or type(error).__name__}"
    return CallFailed("", Uncertain(text, hint=CERTIFICATE if is_untrusted(error) else ""))


def is_untrusted(error: BaseException | None) -> bool:
    """True if whoever answered has not the certificate that the kubeconfig tells of."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


#: Codes where an object is not there.
MISSING: Final = frozenset({"NotFound"})
#: … be it that this cluster has no such kind: none of it can be there.
MISSING_KIND: Final = MISSING | {UNKNOWN_KIND}


def is_missing(failed: CallFailed) -> bool:
    """True if the object is not there."""
    return failed.code in MISSING


def is_another(failed: CallFailed) -> bool:
    """True if what is there has another uid than the one that was meant. Other conflicts, of a
    write beside it or an admission plugin, tell nothing of that."""
    return failed.code == "Conflict" and "UID in" in str(failed)


def is_unknown_kind(failed: CallFailed) -> bool:
    """True if this cluster has no such kind: none of it can be there."""
    return failed.code == UNKNOWN_KIND


def is_expired(failed: CallFailed) -> bool:
    """True if a list's token is too old: it begins again."""
    return failed.code in ("Expired", "Gone", "410")


def _line(status: int, reason: str, message: str) -> AnswerMeaning | None:
    """The first line of the table that fits an answer."""
    fits = (line for line in TABLE if line.status == status and line.reason in ("", reason))
    return next((line for line in fits if line.message in message), None)


def _status(body: bytes) -> dict[str, Any]:
    """The `Status` in an answer; empty where somebody else answered."""
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) and document.get("kind") == "Status" else {}
