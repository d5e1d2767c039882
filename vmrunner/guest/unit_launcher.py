#!/usr/bin/python3 -S
"""`/usr/lib/vmrunner/supervisor` of a unit: what its container and sshd start."""

import sys

sys.path.insert(0, "/usr/lib/vmrunner")

if sys.argv[1:] == ["lay"]:
    from guest.unit_lay import lay  # type: ignore[import-not-found]

    sys.exit(lay())

from guest.unit import main  # type: ignore[import-not-found]

sys.exit(main(sys.argv[1:]))
