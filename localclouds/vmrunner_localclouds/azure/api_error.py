"""Errors that Azure Resource Manager answers with."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]


class ArmRefusal(Exception):
    """Raised by whatever handles a request; the endpoint writes it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        target: str = "",
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.target = target


def invalid(path: str, message: str) -> ArmRefusal:
    """`path` is the parameter: `osProfile.adminUsername`."""
    return ArmRefusal(400, "InvalidParameter", message, target=path)


def missing(path: str) -> ArmRefusal:
    return invalid(path, f"Required parameter '{path}' is missing (null).")


def not_found(what: str, group: str) -> ArmRefusal:
    """`what` is a type with a name: `Microsoft.Compute/disks/d`."""
    text = f"The Resource '{what}' under resource group '{group}' was not found. For more details "
    return ArmRefusal(
        404, "ResourceNotFound", f"{text}please go to https://aka.ms/ARMResourceNotFoundFix"
    )


def no_group(name: str) -> ArmRefusal:
    text = f"Resource group '{name}' could not be found."
    return ArmRefusal(404, "ResourceGroupNotFound", text)


def not_allowed(message: str) -> ArmRefusal:
    return ArmRefusal(409, "OperationNotAllowed", message)


def error_of(code: str, message: str, target: str = "") -> Json:
    """The error itself, as an answer or an operation has it."""
    return {
        "code": code,
        "message": message,
        **({"target": target} if target else {}),
    }


def error_document(error: Json) -> bytes:
    return json.dumps({"error": error}).encode()
