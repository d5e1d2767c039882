"""The ledger: builds, instances, logs and claims, in SQLite or PostgreSQL. The only SQL."""

from vmrunner.ledger.ledger import Ledger
from vmrunner.ledger.values import Launch, Member

__all__ = ["Launch", "Ledger", "Member"]
