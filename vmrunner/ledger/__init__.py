"""The ledger: builds, instances, logs and claims, in SQLite or PostgreSQL. The only SQL."""

from vmrunner.ledger.ledger import Ledger
from vmrunner.ledger.transfer_types import BuildEnd, DeathMark, LaunchRequest, Member

__all__ = ["BuildEnd", "DeathMark", "LaunchRequest", "Ledger", "Member"]
