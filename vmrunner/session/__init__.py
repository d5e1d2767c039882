"""One build on one instance: connect, prepare, run, follow, collect.

`session.Session` joins the parts; the engine makes one for each build and runs it in a thread of
its own. It is not imported here: it brings the whole SSH library.
"""

from vmrunner.core.lifecycle import End
from vmrunner.session.job import CacheShelf, Reporter, SessionJob

__all__ = ["CacheShelf", "End", "Reporter", "SessionJob"]
