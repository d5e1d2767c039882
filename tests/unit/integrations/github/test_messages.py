"""Messages of the Actions service, as it may send them."""

from __future__ import annotations

from typing import Any

import pytest

from vmrunner.integrations.github.errors import GithubAway
from vmrunner.integrations.github.messages import message

KIND = "RunnerScaleSetJobMessages"


@pytest.mark.parametrize(
    "sent",
    [
        {"messageId": 1, "messageType": KIND, "body": "[1]"},
        {"messageId": 1, "messageType": KIND, "body": "[" * 100_000},
        {"messageId": 1, "messageType": KIND, "body": 5},
        {"messageId": 1, "messageType": KIND, "body": '[{"messageType": "JobAvailable"}]'},
        {"messageId": 1, "statistics": [1]},
        {"messageId": 1, "statistics": {"totalAssignedJobs": float("inf")}},
        {"messageId": "1e5"},
        [1],
    ],
)
def test_what_is_no_message_is_asked_for_again(sent: Any) -> None:
    with pytest.raises(GithubAway, match="no message"):
        message(sent)


@pytest.mark.parametrize("statistics", [None, {}, {"totalRunningJobs": 1}])
def test_counts_that_are_not_told_are_not_none(statistics: Any) -> None:
    assert message({"messageId": 1, "statistics": statistics}).counts is None
