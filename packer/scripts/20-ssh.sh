#!/bin/sh
# sshd: root by key only, one host key (planted for each instance), no bans and no dropped bursts.
set -eu

mkdir -p /etc/ssh/sshd_config.d
cat >/etc/ssh/sshd_config.d/10-vmrunner.conf <<'CONF'
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
AuthenticationMethods publickey
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitEmptyPasswords no
HostbasedAuthentication no
UsePAM no
UseDNS no
LoginGraceTime 60
# The only peer is vmrunner: it probes while the VM boots and opens several channels at once.
MaxStartups 100:30:200
MaxSessions 64
PerSourcePenalties no
ClientAliveInterval 30
ClientAliveCountMax 6
AllowAgentForwarding no
# To the supervisor's Unix socket, for which sshd asks this too.
AllowTcpForwarding local
X11Forwarding no
PermitTunnel no
PermitUserEnvironment no
PrintMotd no
PrintLastLog no
CONF
chmod 0644 /etc/ssh/sshd_config.d/10-vmrunner.conf
case $(ssh -V 2>&1) in
OpenSSH_[0-8].* | OpenSSH_9.[0-7]*) # has no penalties, and refuses what it does not know
    sed -i '/^PerSourcePenalties/d' /etc/ssh/sshd_config.d/10-vmrunner.conf
    ;;
esac

# cloud-init plants the key; generating the other kinds at boot costs seconds under emulation.
systemctl mask sshd-keygen.service
systemctl disable ssh.socket || true
systemctl enable ssh.service
rm -f /etc/ssh/ssh_host_*
mkdir -p /root/.ssh
chmod 0700 /root/.ssh
