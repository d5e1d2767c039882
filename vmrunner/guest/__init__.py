"""Code that runs inside the VM: the supervisor of one build.

Debian's own python3 runs these files, so they import the standard library and each other, nothing
else, and they import little: under emulation every import costs. An image holds this directory
as `/usr/lib/vmrunner/guest` and `launcher.py` as `/usr/lib/vmrunner/supervisor` (mode 0755).

In an image of ours one process waits for the build (daemon.py): sshd reaches it by a socket, and
what a command needs is a fork of it. Elsewhere each command is a process:

    sshd ── supervisor start ──▶ systemd unit ── supervisor run ──▶ dockerd ──▶ driver.sh (pid 1)
                                                     ▲   │ spool             log, ctl, ack FIFOs
    sshd ── supervisor follow ◀──── log, events ─────┼───┘                       │
                                                     └───────────────────────────┘

The build may become root in this VM. Nothing here defends against that: what arrives at the host
is attacker input there.
"""
