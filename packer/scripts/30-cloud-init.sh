#!/bin/sh
# cloud-init: few datasources, and only the modules that user-data of ours uses.
set -eu
platform=${VMRUNNER_PLATFORM:-local}

case $platform in
# A seed, or what a local cloud offers: which it is, ds-identify tells by the seed's label and by
# the firmware's names, so that nobody asks the network in vain.
local) sources='NoCloud, Ec2, GCE, None' ;;
ec2) sources='Ec2, None' ;;
gce) sources='GCE, None' ;;
azure) sources='Azure, None' ;;
*)
    echo "VMRUNNER_PLATFORM=$platform: expected local, ec2, gce or azure" >&2
    exit 2
    ;;
esac

mkdir -p /etc/cloud/cloud.cfg.d
# Sorts after the file that the package itself writes.
cat >/etc/cloud/cloud.cfg.d/95-vmrunner-datasource.cfg <<CONF
datasource_list: [ $sources ]
# GCE's by its address, which needs no DNS; that is the same everywhere, and a local cloud has none.
datasource: {GCE: {metadata_url: "http://169.254.169.254/computeMetadata/v1/"}}
CONF
cat >/etc/cloud/cloud.cfg.d/95-vmrunner.cfg <<'CONF'
# The network is systemd-networkd's, by DHCP, the same everywhere.
network: {config: disabled}
users: []
disable_root: false
ssh_pwauth: false
ssh_deletekeys: true
ssh_genkeytypes: [ed25519]
ssh: {emit_keys_to_console: false}
# They came with the user-data: who must know them does, and GCE's guest attributes need not.
ssh_publish_hostkeys: {enabled: false}
no_ssh_fingerprints: true
apt_preserve_sources_list: true
# In this order, and all before sshd starts: the timer; the host key; the user's commands.
cloud_init_modules:
  [bootcmd, write_files, growpart, resizefs, set_hostname, update_etc_hosts, users_groups, ssh,
   runcmd, scripts_user]
cloud_config_modules: []
cloud_final_modules: []
growpart: {mode: auto, devices: ["/"]}
resize_rootfs: noblock
CONF
if [ "$platform" = local ]; then
    # There is no partition to grow, and systemd grows the file system.
    sed -i 's/ growpart, resizefs,//; /^growpart:/d; /^resize_rootfs:/d' \
        /etc/cloud/cloud.cfg.d/95-vmrunner.cfg
fi
# Nothing is plugged into a running build VM.
systemctl mask cloud-init-hotplugd.socket cloud-init-hotplugd.service
