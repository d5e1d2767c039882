"""Webhooks as Standard Webhooks has them: a library of others checks what we sign."""

from __future__ import annotations

import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.webhook_receiver import KEY, Receiver
from tests.support.webhook_receiver import receiver as receiver  # the fixture
from vmrunner.config.notify import NotifySettings
from vmrunner.errors import ConfigError
from vmrunner.services import notifications
from vmrunner.services.client import webhooks

SECRETS: list[tuple[bytes, str | bytes]] = [
    (b"whsec_" + base64.b64encode(b"k" * 32), "whsec_" + base64.b64encode(b"k" * 32).decode()),
    (b"whsec_" + base64.b64encode(b"k" * 31).rstrip(b"="), b"k" * 31),
    (KEY, KEY),
]


@pytest.mark.parametrize(("secret", "theirs"), SECRETS)
def test_a_library_of_others_verifies_what_is_sent(secret: bytes, theirs: str | bytes) -> None:
    name, body, now = "ev-01k", b'{"id": "ev-01k", "text": "\xc3\xa4"}', time.time()
    timestamp = str(int(now))
    headers = {
        "webhook-id": name,
        "webhook-timestamp": timestamp,
        "webhook-signature": webhooks.standard_signature(secret, name, timestamp, body),
    }
    assert Webhook(theirs).verify(body, headers)["id"] == "ev-01k"
    for changed in ({"webhook-id": "ev-2"}, {"webhook-timestamp": str(int(now) - 1)}):
        with pytest.raises(WebhookVerificationError):
            Webhook(theirs).verify(body, {**headers, **changed})
    with pytest.raises(WebhookVerificationError):
        Webhook(theirs).verify(body + b" ", headers)


def test_both_kinds_of_headers_come(receiver: Receiver) -> None:
    error = webhooks.post(
        receiver.url, KEY, event="test", name="ev-1", body=b'{"id": "ev-1"}', now=time.time()
    )
    assert error == ""
    assert receiver.forged == 0  # by the documentation's own function
    (sent,) = receiver.headers
    assert Webhook(KEY).verify(b'{"id": "ev-1"}', sent) == {"id": "ev-1"}
    low = {name.lower(): value for name, value in sent.items()}
    assert low["webhook-id"] == low["vmrunner-event-id"] == "ev-1"


def test_a_broken_standard_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", "whsec_not base64!")
    settings = NotifySettings(url="https://h.example/x", secret="HOOK_SECRET")
    with pytest.raises(ConfigError, match="whsec_ goes on in base64") as caught:
        notifications.open_webhook(settings)
    assert "not base64!" not in str(caught.value)
