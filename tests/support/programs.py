"""Programs that tests write."""

from __future__ import annotations

import sys
from typing import Final

#: The first line of a Python program. A kernel would end an interpreter's name at its first space,
#: and this checkout may lie below a directory whose name has one.
INTERPRETER_LINE: Final = f"#!/usr/bin/env -S '{sys.executable}'\n"
