"""The tables `[[notify]]` of the configuration: webhooks, with the secrets that sign what they are
told, and people, by the services that they read."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from vmrunner.config import named_secret
from vmrunner.lib import units
from vmrunner.lib.config_section import Section
from vmrunner.model import NotifyEvent

_LONGEST: Final = 40
#: What people call a kind by: each is one of `people`.
_SERVICES: Final = frozenset(
    {
        "apprise", "chat", "discord", "email", "googlechat", "irc", "mail", "mailto", "matrix",
        "mattermost", "msteams", "ntfy", "opsgenie", "pagerduty", "person", "pushover",
        "rocketchat", "signal", "slack", "smtp", "teams", "telegram", "zulip",
    }
)  # fmt: skip
_NAME: Final = re.compile(f"[a-z][a-z0-9-]{{0,{_LONGEST - 1}}}")


class NotifySettings(Section):
    """A webhook, or people."""

    kind: Literal["webhook", "people"] = Field(
        default="webhook", description="people: a short text by Slack, Teams, mail and so on."
    )
    name: str = Field(
        default="", description="For you, and for `vmrunner notify`; default: the host of its URL."
    )
    url: str = Field(default="", description="Where to. It is yours alone: no caller can name one.")
    secret: str = Field(
        min_length=1,
        description="Signs what is sent, or of people is Apprise's URL, which holds a password: a "
        "variable's name, or @ and the path of a file.",
    )
    events: list[NotifyEvent] = Field(
        default_factory=list, description="Default: all; with match, build.ended alone."
    )
    match: dict[str, str] = Field(
        default_factory=dict, description="Only builds that have these labels."
    )

    @model_validator(mode="before")
    @classmethod
    def _called(cls, table: Any) -> Any:
        """Call it by its host where it has no name. What is no URL is told of as such."""
        if not isinstance(table, dict) or "name" in table or not isinstance(table.get("url"), str):
            return table
        with contextlib.suppress(ValueError):
            host = re.sub("[^a-z0-9]+", "-", urlsplit(table["url"]).hostname or "").strip("-")
            named = host if host[:1].isalpha() else f"at-{host}"
            return {**table, "name": named[:_LONGEST]}
        return table

    @field_validator("kind", mode="before")
    @classmethod
    def _no_service(cls, value: Any) -> Any:
        if isinstance(value, str) and re.sub("[^a-z]", "", value.lower()) in _SERVICES:
            raise ValueError(
                'no kind of its own; kind = "people", and `secret` names the variable or file that '
                "has Apprise's URL (docs/webhooks.md)"
            )
        return value

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if value and not _NAME.fullmatch(value):
            raise ValueError("not a name; lower-case letters, digits and -, such as chat")
        return value

    @field_validator("url")
    @classmethod
    def _web(cls, value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or not value.isprintable():
            raise ValueError("not a URL; such as https://hooks.example.org/vmrunner")
        if "@" in parts.netloc:
            raise ValueError("it holds a password; what is sent is signed by `secret` instead")
        return value

    @field_validator("secret")
    @classmethod
    def _named(cls, value: str) -> str:
        return named_secret.check(value)

    @model_validator(mode="after")
    def _addressed(self) -> NotifySettings:
        if self.kind == "webhook" and not self.url:
            raise ValueError("it has no url; such as https://hooks.example.org/vmrunner")
        if self.kind == "people" and self.url:
            raise ValueError("people's url is a secret; name it by `secret`, and leave `url` out")
        if not self.name:
            raise ValueError("it has no name; lower-case letters, digits and -, such as chat")
        return self

    @model_validator(mode="after")
    def _labelled(self) -> NotifySettings:
        alarms = [event.value for event in self.events if event is not NotifyEvent.BUILD_ENDED]
        if self.match and alarms:
            raise ValueError(
                f"match chooses builds, and {alarms[0]} is of none; tell another endpoint of it"
            )
        return self

    @property
    def wanted(self) -> frozenset[NotifyEvent]:
        """Return the events that it is told of."""
        if self.match:
            return frozenset({NotifyEvent.BUILD_ENDED})
        return frozenset(self.events or NotifyEvent)

    @property
    def in_the_clear(self) -> bool:
        """True if others on the way can read the requests."""
        parts = urlsplit(self.url)
        return parts.scheme == "http" and not units.is_loopback(parts.hostname or "")

    def key(self, environ: Mapping[str, str] = os.environ) -> bytes:
        """Read its secret. Raises ConfigError."""
        return named_secret.read(self.secret, f"notify.{self.name}.secret", environ)
