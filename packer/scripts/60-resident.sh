#!/bin/sh
# The process that is there when a build comes (guest/daemon.py). Where the host gives a VM its
# identity over a port, that process starts sshd, and cloud-init has nothing to do.
set -eu
cat >/etc/systemd/system/vmrunner-resident.service <<'CONF'
[Unit]
Description=Supervisor of the build to come
DefaultDependencies=no
After=local-fs.target systemd-tmpfiles-setup.service systemd-udevd.service
Conflicts=shutdown.target
Before=shutdown.target
ConditionPathExists=/usr/lib/vmrunner/supervisor
StartLimitIntervalSec=0

[Service]
ExecStartPre=-/sbin/modprobe -q virtio_console
ExecStart=/usr/lib/vmrunner/supervisor resident
Restart=always
RestartSec=0.5
# The build's supervisor and sshd are its children, and live on.
KillMode=process
OOMScoreAdjust=-1000
CPUWeight=1000

[Install]
WantedBy=sysinit.target
CONF
systemctl enable vmrunner-resident.service
mkdir -p /etc/systemd/system/ssh.service.d
cat >/etc/systemd/system/ssh.service.d/vmrunner.conf <<'CONF'
[Unit]
ConditionKernelCommandLine=!vmrunner.channel
CONF
