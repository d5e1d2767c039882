#!/bin/sh
# One SSH connection on stdin and stdout: no port is open, whoever shares the unit's network.
# It may come before the supervisor, which it is for.
mkdir -p /run/sshd
tries=0
until [ -S /run/vmrunner/socket ]; do
  if [ "$tries" = 66 ]; then
    echo "the unit's supervisor does not come" >&2
    exit 1
  fi
  tries=$((tries + 1))
  [ "$tries" -lt 40 ] && sleep 0.05 || sleep 0.5 # seconds: 2, then 13
done
exec /usr/sbin/sshd -i -e -f /usr/lib/vmrunner/guest/unit_sshd.conf
