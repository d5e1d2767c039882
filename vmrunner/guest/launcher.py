#!/usr/bin/python3 -S
"""`/usr/lib/vmrunner/supervisor`: what sshd and systemd start in the VM."""

import sys

sys.path.insert(0, "/usr/lib/vmrunner")

from guest.supervisor import main  # type: ignore[import-not-found]

sys.exit(main(sys.argv[1:]))
