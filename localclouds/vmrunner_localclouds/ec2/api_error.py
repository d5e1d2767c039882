"""An error that moto has no class for, with its HTTP status."""

from __future__ import annotations


class Ec2Refusal(Exception):
    """Raised within moto's handlers; it passes through them, and the endpoint writes it."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
