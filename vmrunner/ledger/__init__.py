"""The ledger: builds, instances, logs and claims, in SQLite or PostgreSQL. The only SQL."""

from vmrunner.ledger.ledger import Ledger
from vmrunner.ledger.values import BuildEnd, LaunchRequest, Member

__all__ = ["BuildEnd", "LaunchRequest", "Ledger", "Member"]
