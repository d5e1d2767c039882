"""The handler as a Lambda function, and what becomes of an invocation that fails."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from vmrunner.errors import Conflict
from vmrunner.providers.ec2.client import Answer
from vmrunner.providers.ec2.guard import documents
from vmrunner.providers.ec2.guard.names import GuardSite
from vmrunner.providers.ec2.guard.part import api
from vmrunner.providers.port_guard import GUARD_INTERVAL

GET: Final = api("lambda", "get_function_configuration")
RUNTIME, ARCHITECTURE, MEMORY, TIMEOUT = "python3.13", "arm64", 256, 240


class LambdaFunction:
    """The handler."""

    name = "function"
    _TERRAFORM: Final = re.compile(r"\(Terraform\), source sha256 ([0-9a-f]{64})")

    def __init__(self, site: GuardSite) -> None:
        self._site = site
        self.id = site.names.name

    def wanted(self) -> Answer:
        return {
            "code": documents.digest(documents.archive()),
            "Runtime": RUNTIME,
            "Architectures": [ARCHITECTURE],
            "Handler": documents.HANDLER,
            "Role": self._site.names.role_arn(self._site.names.name),
            "MemorySize": MEMORY,
            "Timeout": TIMEOUT,
            "Environment": self._site.environment,
        }

    def look(self) -> Answer | None:
        found = self.raw()
        if found is None:
            return None
        seen = {key: found.get(key) for key in self.wanted()}
        seen["code"] = found.get("CodeSha256")
        seen["Environment"] = found.get("Environment", {}).get("Variables", {})
        # Terraform packs the same source in another way, and says which it was.
        packed = self._TERRAFORM.search(found.get("Description", ""))
        if packed is not None and packed[1] == documents.fingerprint():
            seen["code"] = self.wanted()["code"]
        return seen

    def raw(self) -> Answer | None:
        return self._site.find(GET, FunctionName=self.id)

    def own(self) -> None:
        """Raises `Conflict` when it is Terraform's: the two would undo each other's work."""
        found = self.raw()
        if found is not None and self._TERRAFORM.search(found.get("Description", "")):
            raise Conflict(
                f"the guard {self.id} was made by Terraform",
                hint="change it there: terraform apply",
            )

    def make(self) -> None:
        self._site.settle(
            api("lambda", "create_function"),
            FunctionName=self.id,
            Code={"ZipFile": documents.archive()},
            Description=f"vmrunner's guard, source sha256 {documents.fingerprint()}",
            Tags=self._site.names.tags,
            **self._configuration(),
            Architectures=[ARCHITECTURE],
        )

    def mend(self, keys: Collection[str]) -> None:
        if {"code", "Architectures"} & set(keys):
            self._site.settle(
                api("lambda", "update_function_code"),
                FunctionName=self.id,
                ZipFile=documents.archive(),
                Architectures=[ARCHITECTURE],
            )
        self._site.settle(
            api("lambda", "update_function_configuration"),
            FunctionName=self.id,
            Description=f"vmrunner's guard, source sha256 {documents.fingerprint()}",
            **self._configuration(),
        )

    def remove(self) -> None:
        self._site.call(api("lambda", "delete_function"), FunctionName=self.id)

    def _configuration(self) -> Answer:
        wanted = self.wanted()
        made = {key: wanted[key] for key in ("Runtime", "Handler", "Role", "MemorySize", "Timeout")}
        return {**made, "Environment": {"Variables": wanted["Environment"]}}


class InvokeConfig:
    """The function's invocation settings. No retries: the next invocation is due anyway. What came
    to nothing goes to the queue."""

    name = "retries"

    def __init__(self, site: GuardSite) -> None:
        self._site = site
        self.id = site.names.name

    def wanted(self) -> Answer:
        return {
            "MaximumRetryAttempts": 0,
            "MaximumEventAgeInSeconds": GUARD_INTERVAL,
            "OnFailure": {"Destination": self._site.names.queue_arn},
        }

    def look(self) -> Answer | None:
        found = self._site.find(
            api("lambda", "get_function_event_invoke_config"), FunctionName=self.id
        )
        if found is None:
            return None
        seen = {key: found.get(key) for key in self.wanted()}
        return {**seen, "OnFailure": found.get("DestinationConfig", {}).get("OnFailure")}

    def make(self) -> None:
        wanted = self.wanted()
        target = {"OnFailure": wanted.pop("OnFailure")}
        self._site.settle(
            api("lambda", "put_function_event_invoke_config"),
            FunctionName=self.id,
            DestinationConfig=target,
            **wanted,
        )

    def mend(self, _: Collection[str]) -> None:
        self.make()

    def remove(self) -> None:
        self._site.call(api("lambda", "delete_function_event_invoke_config"), FunctionName=self.id)
