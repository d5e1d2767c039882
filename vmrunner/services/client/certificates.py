"""Authorities that this host trusts over TLS."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache

from vmrunner.errors import ConfigError


@lru_cache(maxsize=1)
def trusted() -> ssl.SSLContext:
    """Return the usual authorities, or those of `SSL_CERT_FILE` or `SSL_CERT_DIR`. Made once: it
    takes longer than a request. Raises ConfigError."""
    import httpx2

    try:
        return httpx2.create_ssl_context()
    except OSError as error:  # SSLError is one
        name = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
        raise ConfigError(
            f"{name}: {os.environ.get(name, '')!r} cannot be used: {error.strerror or error}",
            hint="a file of certificates as PEM",
        ) from None
