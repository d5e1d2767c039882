#!/bin/sh
# What the builder and its cloud left behind, but for what 90-clean.sh removes next.
set -eu
platform=${VMRUNNER_PLATFORM:-local}

rm -rf "${VMRUNNER_WORK:?}/stage"
rm -f /etc/ssh/sshd_config.d/00-vmrunner-builder.conf /etc/ssh/sshd_config.d/50-cloud-init.conf
rm -f /etc/default/instance_configs.cfg* /etc/boto.cfg /etc/hosts.cloud-init
rm -f /etc/.pwd.lock
# From the next boot on the network is 80-vmrunner.network's alone; until then the builder keeps the
# one that it is reached by. cloud-init needs netplan as a package; without a file it writes nothing.
rm -f /etc/netplan/*.yaml /etc/network/interfaces.d/* /etc/systemd/network/*cloud-init* \
    /etc/systemd/network/*google-guest-agent* /etc/udev/rules.d/70-persistent-net.rules
rm -f /etc/waagent.conf /etc/logrotate.d/waagent*
rm -rf /var/lib/waagent /var/lib/google /var/lib/amazon /var/lib/ubuntu-advantage /var/lib/update-notifier \
    /var/lib/dhcp/* /var/crash/* /root/.cache /root/.docker /root/.config
usermod -p '*' root # a key alone lets in; "!" would lock it out of that too
apt-get clean
if [ -d /run/systemd/system ]; then
    # In memory, as in the image: 90-clean.sh takes the files away.
    systemctl restart systemd-journald.service
fi

if [ "$platform" = local ] && mountpoint -q /boot; then
    # vmrunner's provider takes the root's file system, and the kernel that lies in it.
    under=$(mktemp -d)
    mount --bind / "$under"
    cp -a -x /boot/. "$under/boot/"
    umount "$under"
    rmdir "$under"
fi
