#!/bin/sh
# A vendor's cloud image made as bare as the root that vmrunner's own builder starts from: nothing
# that lets others in, updates itself, or configures the network beside systemd-networkd.
set -eu
export DEBIAN_FRONTEND=noninteractive

if command -v cloud-init >/dev/null && [ -d /run/systemd/system ]; then
    # Its own apt-get and growpart come first. 2: done, and something was not to its liking.
    code=0
    timeout 600 cloud-init status --wait >/dev/null || code=$?
    if [ "$code" != 0 ] && [ "$code" != 2 ]; then
        cloud-init status --long
        exit 1
    fi
fi

units='apt-daily.timer apt-daily-upgrade.timer apt-daily.service apt-daily-upgrade.service
unattended-upgrades.service packagekit.service snapd.socket snapd.service'
for unit in $units; do
    if systemctl cat "$unit" >/dev/null 2>&1; then
        systemctl stop "$unit"
    fi
done

# Let somebody else in: by a cloud's agents, keys that a cloud pushes, a login by a cloud's accounts.
agents='amazon-ssm-agent ec2-instance-connect ec2-hibinit-agent hibagent walinuxagent
google-guest-agent google-osconfig-agent google-compute-engine google-compute-engine-oslogin
google-cloud-ops-agent gce-compute-image-packages gce-disk-expand'
# Update, report or announce by themselves.
updaters='snapd unattended-upgrades update-notifier-common ubuntu-advantage-tools ubuntu-pro-client
ubuntu-pro-client-l10n motd-news-config landscape-common landscape-client popularity-contest apport
apport-core-dump-handler whoopsie fwupd packagekit pollinate needrestart lxd-installer
lxd-agent-loader reportbug apt-listchanges exim4-base rsyslog'
# Look after hardware that a build VM has not.
hardware='modemmanager multipath-tools open-iscsi udisks2 thermald'
installed=
for package in $agents $updaters $hardware; do
    if dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed; then
        installed="$installed $package"
    fi
done
if [ -n "$installed" ]; then
    # shellcheck disable=SC2086
    apt-get -o DPkg::Lock::Timeout=300 purge -y $installed
fi
rm -rf /snap /var/snap /var/lib/snapd /var/cache/snapd /root/snap
rm -f /etc/apt/sources.list.d/google-cloud*.list /etc/apt/sources.list.d/gce_sdk.list \
    /etc/apt/apt.conf.d/20auto-upgrades /etc/apt/apt.conf.d/20apt-esm-hook.conf

# Units of packages that others need.
for unit in networking.service NetworkManager.service multipathd.service ModemManager.service \
    ua-timer.timer esm-cache.service update-notifier-download.timer update-notifier-motd.timer \
    apport.service snapd.service; do
    systemctl mask "$unit"
done
