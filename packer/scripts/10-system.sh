#!/bin/sh
# What every image has: a name, a small journal in memory, a root that grows.
set -eu
platform=${VMRUNNER_PLATFORM:-local}

echo vmrunner >/etc/hostname
cat >/etc/hosts <<'CONF'
127.0.0.1 localhost vmrunner
::1 localhost
CONF

if [ "$platform" = local ]; then
    # The whole disk is one file system; it grows to the disk that the VM was given.
    cat >/etc/fstab <<'CONF'
/dev/vda / ext4 defaults,noatime,x-systemd.growfs 0 0
CONF
fi

# Names are first asked for by a build: the resolver starts when SSH answers, not before.
rm -f /etc/systemd/system/sysinit.target.wants/systemd-resolved.service
cat >/etc/systemd/system/vmrunner-late.service <<'CONF'
[Unit]
Description=What a build needs but a boot does not
After=ssh.service cloud-init-network.service

[Service]
Type=oneshot
# Who holds the console knows by this when to knock. Twice: the kernel may talk into a line.
ExecStart=-sh -c "grep -q vmrunner.channel /proc/cmdline || for _ in 1 2; do echo 'vmrunner: ssh is up'; done >/dev/console"
ExecStart=systemctl start --no-block systemd-resolved.service

[Install]
WantedBy=multi-user.target
CONF
systemctl enable vmrunner-late.service
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf

mkdir -p /etc/systemd/journald.conf.d /etc/systemd/resolved.conf.d /etc/systemd/system.conf.d
cat >/etc/systemd/resolved.conf.d/vmrunner.conf <<'CONF'
[Resolve]
# No port but sshd's is open.
LLMNR=no
MulticastDNS=no
CONF
cat >/etc/systemd/journald.conf.d/vmrunner.conf <<'CONF'
[Journal]
Storage=volatile
RuntimeMaxUse=16M
ForwardToSyslog=no
ForwardToWall=no
Audit=no
CONF
cat >/etc/systemd/system.conf.d/vmrunner.conf <<'CONF'
[Manager]
# A VM that is told to end must end: nothing in it is worth waiting for.
DefaultTimeoutStopSec=15s
CONF

# The cloud's own clock, which needs no internet. Here the firmware's is the host's.
case $platform in
ec2) clock=169.254.169.123 ;;
gce) clock=169.254.169.254 ;;
*) clock= ;;
esac
if [ "$clock" ]; then
    mkdir -p /etc/systemd/timesyncd.conf.d
    printf '[Time]\nNTP=%s\nFallbackNTP=\n' "$clock" >/etc/systemd/timesyncd.conf.d/vmrunner.conf
    systemctl enable systemd-timesyncd.service
fi

# The supervisor and the manifest are put there last.
mkdir -p /etc/vmrunner /usr/lib/vmrunner/guest
