"""The ledger: builds, instances, logs and claims, in SQLite or PostgreSQL. The only SQL."""

from vmrunner.ledger.store import Ledger
from vmrunner.ledger.values import STARTING, Launch, Member

__all__ = ["STARTING", "Launch", "Ledger", "Member"]
