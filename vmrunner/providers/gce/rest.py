"""Calls to services of Google's that have no client library here."""

from __future__ import annotations

from typing import Final

import google.auth
import requests
from google.auth.transport.requests import AuthorizedSession

from vmrunner.providers.gce.options import GceOptions

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"


def base(options: GceOptions, service: str) -> str:
    """Base URL of this service. A plain endpoint is a test's or a try-out's, and answers for all of
    Google's."""
    return str(options.api_endpoint).rstrip("/") if options.plain else service


def session(options: GceOptions) -> requests.Session:
    """Return a session with the credentials that Google's libraries find. Raises google.auth's
    errors."""
    if options.plain:
        return requests.Session()
    credentials, _ = google.auth.default(scopes=[_SCOPE])
    made: requests.Session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
    return made
