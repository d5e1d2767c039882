#!/bin/sh
# Docker: there when something talks to its socket, not before. From the recipe's [docker]:
# VMRUNNER_REGISTRY_MIRROR (asked before Docker Hub), VMRUNNER_ADDRESS_POOL (cut into /24 networks),
# VMRUNNER_USERNS (yes: root in a container is nobody in the VM).
set -eu
pool=${VMRUNNER_ADDRESS_POOL:-172.18.0.0/16}
mirror=${VMRUNNER_REGISTRY_MIRROR:+\"$VMRUNNER_REGISTRY_MIRROR\"}
case ${VMRUNNER_USERNS:-no} in
yes) remap=default ;;
*) remap= ;;
esac
case ${VMRUNNER_PLATFORM:-local} in
gce) mtu=1460 ;;
*) mtu=1500 ;;
esac

mkdir -p /etc/docker /etc/containerd
cat >/etc/docker/daemon.json <<CONF
{
  "storage-driver": "overlay2",
  "default-address-pools": [{"base": "$pool", "size": 24}],
  "registry-mirrors": [$mirror],
  "userns-remap": "$remap",
  "mtu": $mtu,
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
