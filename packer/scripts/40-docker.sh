#!/bin/sh
# Docker: there when something talks to its socket, not before.
set -eu

mkdir -p /etc/docker /etc/containerd
cat >/etc/docker/daemon.json <<'CONF'
{
  "storage-driver": "overlay2",
  "log-driver": "local",
  "log-opts": {"max-size": "8m", "max-file": "2"},
  "live-restore": true,
  "userland-proxy": false,
  "shutdown-timeout": 5
}
CONF
# Docker needs containerd's core only; every plugin that is probed at start costs time.
cat >/etc/containerd/config.toml <<'CONF'
version = 2
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]
CONF
systemctl disable docker.service containerd.service
systemctl enable docker.socket
