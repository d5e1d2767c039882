#!/bin/sh
# The last of all, after 90-clean.sh: the user that Packer came as, the directory that it worked in,
# and a look at what nobody may find in an image.
set -eu
work=${VMRUNNER_WORK:?}

# The one who runs this is logged in: -f, and what counts is that the name is gone.
awk -F: '$3 >= 1000 && $3 < 60000 { print $1 }' /etc/passwd | while read -r user; do
    userdel -f -r "$user" 2>/dev/null || true
    if id "$user" >/dev/null 2>&1; then
        echo "leave: the user $user cannot be removed" >&2
        exit 1
    fi
done
rm -f /etc/sudoers.d/90-cloud-init-users /etc/sudoers.d/google_sudoers
# Copies of what was before, with that user in them.
rm -f /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /etc/subuid- /etc/subgid-
rm -rf "$work"
# Who logged in while the builder lived. Its session is noted again when it ends, after this.
for file in wtmp btmp lastlog; do
    [ ! -e "/var/log/$file" ] || : >"/var/log/$file"
done

left=$(
    find /home /root/.ssh /var/lib/apt/lists /var/lib/cloud /var/lib/waagent /tmp /var/tmp -mindepth 1 \
        -not -name 'mmdebstrap.*' -not -path '*/systemd-private-*' 2>/dev/null
    find /var/log -type f -not -name wtmp -not -name btmp -not -name lastlog
    find /etc/ssh -name 'ssh_host_*' -o -path '*/sshd_config.d/00-*'
    find /etc/sudoers.d -name '*cloud*' -o -name '*google*'
    find /etc/netplan /etc/machine-id -type f -size +0 2>/dev/null
    find "$work" 2>/dev/null
) || true # find complains of directories that are not there
if [ -n "$left" ]; then
    echo "leave: an image must not have these:" >&2
    echo "$left" >&2
    exit 1
fi
if [ -d /run/systemd/system ]; then
    fstrim / || echo "leave: this disk takes no discards"
fi
sync
