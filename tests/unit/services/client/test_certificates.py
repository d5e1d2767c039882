from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.named_servers import certificate
from vmrunner.errors import ConfigError
from vmrunner.services.client import certificates


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    certificates.trusted.cache_clear()
    yield
    certificates.trusted.cache_clear()


def test_ones_own_authority_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = certificate(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(place))
    assert certificates.trusted().cert_store_stats()["x509"] == 1


@pytest.mark.parametrize(("text", "why"), [(None, "No such file"), ("x", "no certificate")])
def test_a_file_without_certificates_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, why: str
) -> None:
    place = tmp_path / "ca.pem"
    if text is not None:
        place.write_text(text)
    monkeypatch.setenv("SSL_CERT_FILE", str(place))
    with pytest.raises(ConfigError, match=f"SSL_CERT_FILE: '.*ca.pem' cannot be used: .*{why}"):
        certificates.trusted()
