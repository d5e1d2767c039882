"""Issuers of identity tokens: of CI systems, whose jobs exchange them, and of people, who log in at
the page; and what theirs are worth here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from vmrunner.config import named_secret
from vmrunner.config.policy_field import Policy
from vmrunner.lib import units
from vmrunner.lib.config_section import Flag, Seconds, Section

LONGEST_TOKEN = 3600.0  # seconds of a token that was exchanged
LONGEST_LOGIN: Final = 8 * 3600.0  # seconds of a login at the page
_NAME: Final = re.compile("[a-z][a-z0-9-]{0,39}")


def _issuer_url(value: str) -> str:
    parts = urlsplit(value)
    local = parts.scheme == "http" and units.is_loopback(parts.hostname or "")
    if not (parts.scheme == "https" and parts.hostname) and not local:
        raise ValueError("not an https:// URL; as the tokens have it in `iss`")
    if "#" in value:
        raise ValueError("an issuer's URL has no #; as the tokens have it in `iss`")
    return value


def own_address(issuer: str, hosts: Sequence[str], document: Mapping[str, Any], name: str) -> str:
    """Return an address that an issuer's document names. Raises ValueError unless it is at the
    issuer itself, or at one of these hosts by TLS."""
    place = str(document.get(name))
    scheme, host = urlsplit(place)[:2]
    if (scheme, host) != urlsplit(issuer)[:2] and not (scheme == "https" and host in hosts):
        raise ValueError(f"its {name} is {place!r}, which is not its own")
    return place


IssuerUrl = Annotated[str, AfterValidator(_issuer_url)]


class IdentityRule(Section):
    """A rule: an identity whose claims have these values gets these labels and quotas."""

    match: dict[str, str] = Field(min_length=1, description="Whole values of claims.")
    labels: dict[str, str] = Field(description="Its filter; {claim} stands for a claim's value.")
    builds: int | None = Field(default=None, ge=1, description="The most builds at once.")
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


class OidcRule(IdentityRule):
    """A rule for jobs of a CI system: each is a tenant."""

    labels: dict[str, str] = Field(
        min_length=1, description="Its filter; {claim} stands for a claim's value."
    )
    scopes: list[Literal["submit", "read", "enter"]] = Field(
        default=["submit", "read"], min_length=1
    )


class OidcIssuer(Section):
    """One issuer. The first of its rules that matches counts; none: nothing is given."""

    issuer: IssuerUrl = Field(description="As the tokens have it in `iss`.")
    audience: str = Field(min_length=1, description="As they must have it in `aud`.")
    rules: list[OidcRule] = Field(min_length=1)
    lifetime: Seconds = Field(default=LONGEST_TOKEN, gt=0, le=LONGEST_TOKEN)


class LoginRule(IdentityRule):
    """A rule for people. A claim that is a list, such as `groups`, has the value when it is among
    them; `email` counts when the issuer says that it is verified."""

    labels: dict[str, str] = Field(
        default_factory=dict,
        description="Their filter; {claim} stands for a claim's value. None: they see all.",
    )
    scopes: list[Literal["submit", "read", "enter", "admin"]] = Field(
        default=["submit", "read"], min_length=1
    )

    @model_validator(mode="after")
    def _useful(self) -> LoginRule:
        if self.labels and "admin" in self.scopes:
            raise ValueError("scopes: admin sees all, whatever the labels; leave one of them out")
        if not {"read", "admin"} & set(self.scopes):
            raise ValueError("scopes: nobody can see the page without read; add it")
        return self


class LoginIssuer(Section):
    """An issuer at which people log in to the page. The first of its rules that matches counts;
    none: they are not let in."""

    name: str = Field(description="Names it on the page and in its address, such as `example`.")
    issuer: IssuerUrl = Field(description="As the tokens have it in `iss`.")
    client_id: str = Field(min_length=1, description="As which it knows this server.")
    client_secret: str = Field(
        default="",
        description="A variable's name, or @ and the path of a file; default: a public client.",
    )
    hosts: list[str] = Field(
        default_factory=list,
        description="Hosts beside its own at which its document may say that it is reached.",
    )
    ask_for: list[str] = Field(
        default=["openid", "profile", "email"], description="What it is asked to tell (`scope`)."
    )
    admins: Flag = Field(default=False, description="Rules may give the scope admin.")
    rules: list[LoginRule] = Field(min_length=1)
    lifetime: Seconds = Field(default=LONGEST_LOGIN, gt=0, le=LONGEST_LOGIN)

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("not a name; lower-case letters, digits and -, such as example")
        return value

    @field_validator("client_secret")
    @classmethod
    def _named(cls, value: str) -> str:
        return named_secret.check(value) if value else value

    @field_validator("ask_for")
    @classmethod
    def _opens(cls, value: list[str]) -> list[str]:
        if "openid" not in value:
            raise ValueError("without openid an issuer tells nobody's identity; add it")
        return value

    @model_validator(mode="after")
    def _opted_in(self) -> LoginIssuer:
        if not self.admins and any("admin" in rule.scopes for rule in self.rules):
            raise ValueError(
                "a rule gives admin, and admins is false; admins = true lets "
                "whoever rules the issuer end every build here"
            )
        return self

    def own_address(self, document: Mapping[str, Any], name: str) -> str:
        """Return an address that its document names. Raises ValueError for another's."""
        return own_address(self.issuer, self.hosts, document, name)

    def secret(self) -> str:
        """Read the client's secret; empty: it has none. Raises ConfigError."""
        if not self.client_secret:
            return ""
        field = f"server.login.{self.name}.client_secret"
        return named_secret.read(self.client_secret, field).decode()
