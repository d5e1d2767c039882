#!/bin/sh
# One SSH connection on stdin and stdout: no port is open, whoever shares the unit's network.
mkdir -p /run/sshd
exec /usr/sbin/sshd -i -e -f /usr/lib/vmrunner/guest/unit_sshd.conf
