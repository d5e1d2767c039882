"""Issuers of identity tokens, such as CI systems, and what theirs are worth here."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from vmrunner.config.network_policy import Policy
from vmrunner.lib import units
from vmrunner.lib.config_section import Seconds, Section

LONGEST_TOKEN = 3600.0  # seconds of a token that was exchanged


class OidcRule(Section):
    """A rule: an identity whose claims have these values gets these labels, scopes and quotas."""

    match: dict[str, str] = Field(min_length=1, description="Whole values of claims.")
    labels: dict[str, str] = Field(
        min_length=1, description="Its filter; {claim} stands for a claim's value."
    )
    scopes: list[Literal["submit", "read", "enter"]] = Field(
        default=["submit", "read"], min_length=1
    )
    builds: int | None = Field(default=None, ge=1, description="At most so many at once.")
    max_ttl: Seconds | None = Field(default=None, description="The longest life of a VM.")
    providers: list[str] | None = None
    usd_per_day: float | None = Field(
        default=None,
        ge=0.0,
        allow_inf_nan=False,
        description="What builds of one `sub` of the issuer may cost.",
    )

    network: Policy | None = Field(default=None, description="The most that its builds reach.")
    docker: bool | None = Field(
        default=None, description="false: neither a Docker of its own nor a privileged container."
    )
    images: list[str] | None = Field(
        default=None, description="VM images that it may name beside the configured one."
    )

    @field_validator("labels")
    @classmethod
    def _usable(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            units.check_label(name, text.replace("{", "").replace("}", ""))
        return value


class OidcIssuer(Section):
    """One issuer. The first of its rules that matches counts; none: nothing is given."""

    issuer: str = Field(description="As the tokens have it in `iss`.")
    audience: str = Field(min_length=1, description="As they must have it in `aud`.")
    rules: list[OidcRule] = Field(min_length=1)
    lifetime: Seconds = Field(default=LONGEST_TOKEN, gt=0, le=LONGEST_TOKEN)

    @field_validator("issuer")
    @classmethod
    def _secure(cls, value: str) -> str:
        parts = urlsplit(value)
        local = parts.scheme == "http" and units.is_loopback(parts.hostname or "")
        if not (parts.scheme == "https" and parts.hostname) and not local:
            raise ValueError("not an https:// URL; as the tokens have it in `iss`")
        if "#" in value:
            raise ValueError("an issuer's URL has no #; as the tokens have it in `iss`")
        return value
