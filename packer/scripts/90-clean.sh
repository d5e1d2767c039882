#!/bin/sh
# No leftovers: what makes two machines look like one, and what nobody needs.
set -eu

: >/etc/machine-id
rm -f /var/lib/dbus/machine-id /var/lib/systemd/random-seed /var/lib/systemd/credential.secret
rm -f /etc/ssh/ssh_host_* /root/.ssh/authorized_keys /root/.ssh/known_hosts
rm -rf /var/lib/cloud/* /run/cloud-init
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/cache/apt/archives/lock /var/cache/debconf/*-old
rm -rf /var/lib/systemd/timers /var/lib/systemd/network
find /var/log -type f -delete
rm -rf /var/log/journal
# mmdebstrap's own file there is in use: without it, its last apt-get would work on the host.
find /tmp /var/tmp -mindepth 1 -maxdepth 1 -not -name 'mmdebstrap.*' -exec rm -rf {} +
find /root -maxdepth 1 -type f -name '.*_history' -delete
# What systemd does after an update is done.
touch -r /usr /etc/.updated /var/.updated
