#!/bin/sh
# A boot without what a VM that lives for one build never needs.
set -eu
platform=${VMRUNNER_PLATFORM:-local}

for unit in \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    logrotate.timer man-db.timer motd-news.timer systemd-tmpfiles-clean.timer \
    e2scrub_reap.service systemd-pstore.service remote-fs.target \
    getty@tty1.service serial-getty@ttyS0.service console-getty.service \
    getty.target systemd-networkd-persistent-storage.service \
    systemd-random-seed.service systemd-hwdb-update.service systemd-journal-flush.service \
    systemd-logind.service systemd-binfmt.service systemd-network-generator.service \
    systemd-udev-load-credentials.service systemd-tmpfiles-setup-dev-early.service \
    systemd-user-sessions.service modprobe@drm.service modprobe@configfs.service \
    modprobe@fuse.service modprobe@efi_pstore.service systemd-battery-check.service \
    systemd-update-utmp.service systemd-rfkill.service systemd-rfkill.socket \
    ldconfig.service systemd-firstboot.service; do
    systemctl mask "$unit"
done
if [ "$platform" = local ]; then
    # Its address is there before cloud-init is done; nothing waits for "online".
    systemctl mask systemd-networkd-wait-online.service
    systemctl mask systemd-timesyncd.service
    # khugepaged copies memory in use into pages of 2 MiB: a clone that waits would hold 8 MiB more
    # of its own. What a build asks for anew has such pages at once, without it.
    mkdir -p /etc/tmpfiles.d
    echo 'w /sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs - - - - 600000' \
        >/etc/tmpfiles.d/vmrunner.conf
    # Drivers and names for the disks and the network. What else a build may ask for comes when it
    # does, but for KVM, which nothing asks for where it is not.
    mkdir -p /etc/systemd/system/systemd-udev-trigger.service.d \
        /etc/systemd/system/vmrunner-late.service.d
    cat >/etc/systemd/system/vmrunner-late.service.d/kvm.conf <<'CONF'
[Service]
ExecStart=-modprobe -q kvm_intel
ExecStart=-modprobe -q kvm_amd
CONF
    cat >/etc/systemd/system/systemd-udev-trigger.service.d/vmrunner.conf <<'CONF'
[Service]
ExecStart=
ExecStart=-udevadm trigger --type=all --action=add --subsystem-match=virtio \
    --subsystem-match=block --subsystem-match=net
CONF
fi
rm -f /etc/motd /etc/update-motd.d/*
