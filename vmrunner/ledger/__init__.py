"""The ledger: builds, instances, logs and claims, in SQLite or PostgreSQL. The only SQL."""

from vmrunner.ledger.ledger import Ledger
from vmrunner.ledger.values import LaunchRequest, Member

__all__ = ["LaunchRequest", "Ledger", "Member"]
