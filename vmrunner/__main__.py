"""`python -m vmrunner`."""

from __future__ import annotations

import sys

from vmrunner.cli import main

if __name__ == "__main__":
    sys.exit(main())
