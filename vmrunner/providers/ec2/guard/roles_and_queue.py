"""Parts that the function needs before it is there: a queue, a log, roles."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from vmrunner.providers.ec2.client import Answer
from vmrunner.providers.ec2.guard.names import GuardSite
from vmrunner.providers.ec2.guard.part import api, text

RETENTION: Final = 14 * 86_400  # seconds, of a dead letter
LOG_DAYS: Final = 30


class DeadLetterQueue:
    """The queue for an invocation that came to nothing."""

    name = "queue"

    def __init__(self, site: GuardSite) -> None:
        self._site = site
        self.id = site.names.name

    def wanted(self) -> Answer:
        return {"MessageRetentionPeriod": str(RETENTION), "SqsManagedSseEnabled": "true"}

    def look(self) -> Answer | None:
        url = self._url()
        if url is None:
            return None
        names = list(self.wanted())
        answer = self._site.call(
            api("sqs", "get_queue_attributes"), QueueUrl=url, AttributeNames=names
        )
        return dict(answer.get("Attributes", {}))

    def make(self) -> None:
        self._site.settle(
            api("sqs", "create_queue"),
            QueueName=self.id,
            Attributes=self.wanted(),
            tags=self._site.names.tags,
        )

    def mend(self, keys: Collection[str]) -> None:
        wanted = {key: self.wanted()[key] for key in keys}
        self._site.call(api("sqs", "set_queue_attributes"), QueueUrl=self._url(), Attributes=wanted)

    def remove(self) -> None:
        self._site.call(api("sqs", "delete_queue"), QueueUrl=self._url())

    def _url(self) -> str | None:
        found = self._site.find(api("sqs", "get_queue_url"), QueueName=self.id)
        return None if found is None else str(found["QueueUrl"])


class LogGroup:
    """The log of the function, kept for a while."""

    name = "log"

    def __init__(self, site: GuardSite) -> None:
        self._site = site
        self.id = site.names.log_group

    def wanted(self) -> Answer:
        return {"retentionInDays": LOG_DAYS}

    def look(self) -> Answer | None:
        answer = self._site.call(api("logs", "describe_log_groups"), logGroupNamePrefix=self.id)
        for group in answer["logGroups"]:
            if group["logGroupName"] == self.id:
                return {"retentionInDays": group.get("retentionInDays")}
        return None

    def make(self) -> None:
        self._site.call(
            api("logs", "create_log_group"), logGroupName=self.id, tags=self._site.names.tags
        )
        self.mend(())

    def mend(self, _: Collection[str]) -> None:
        self._site.call(
            api("logs", "put_retention_policy"), logGroupName=self.id, retentionInDays=LOG_DAYS
        )

    def remove(self) -> None:
        self._site.call(api("logs", "delete_log_group"), logGroupName=self.id)


class IamRole:
    """A role by which a service acts for the guard: one policy, written into the role itself."""

    def __init__(self, site: GuardSite, name: str, role: str, document: str, *, trust: str) -> None:
        self._site = site
        self.name = name
        self.id = role
        self._inline = document
        self._trust = site.policy(f"{trust}-trust")
        self._policy = site.policy(document)

    def wanted(self) -> Answer:
        return {"trust": self._trust, "policy": self._policy}

    def look(self) -> Answer | None:
        role = self._site.find(api("iam", "get_role"), RoleName=self.id)
        if role is None:
            return None
        policy = self._site.find(
            api("iam", "get_role_policy"), RoleName=self.id, PolicyName=self._inline
        )
        return {
            "trust": role["Role"]["AssumeRolePolicyDocument"],
            "policy": policy and policy["PolicyDocument"],
        }

    def make(self) -> None:
        tags = [{"Key": key, "Value": value} for key, value in self._site.names.tags.items()]
        self._site.call(
            api("iam", "create_role"),
            RoleName=self.id,
            AssumeRolePolicyDocument=text(self._trust),
            Tags=tags,
        )
        self.mend({"policy"})

    def mend(self, keys: Collection[str]) -> None:
        if "trust" in keys:
            self._site.call(
                api("iam", "update_assume_role_policy"),
                RoleName=self.id,
                PolicyDocument=text(self._trust),
            )
        if "policy" in keys:
            self._site.call(
                api("iam", "put_role_policy"),
                RoleName=self.id,
                PolicyName=self._inline,
                PolicyDocument=text(self._policy),
            )

    def remove(self) -> None:
        self._site.find(api("iam", "delete_role_policy"), RoleName=self.id, PolicyName=self._inline)
        self._site.call(api("iam", "delete_role"), RoleName=self.id)
