"""One build on one instance: connect, prepare, run, follow, collect.

`Session` joins the parts; the engine makes one for each build and runs it in a thread of its own.
"""

from vmrunner.core.lifecycle import End
from vmrunner.session.job import CacheShelf, Reporter, SessionJob
from vmrunner.session.session import Session

__all__ = ["CacheShelf", "End", "Reporter", "Session", "SessionJob"]
