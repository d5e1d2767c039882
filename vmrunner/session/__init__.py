"""One build on one instance: connect, prepare, run, follow, collect.

`Session` joins the parts; the engine makes one for each build and runs it in a thread of its own.
"""

from vmrunner.session.job import Reporter, SessionJob, Verdict
from vmrunner.session.session import Session

__all__ = ["Reporter", "Session", "SessionJob", "Verdict"]
