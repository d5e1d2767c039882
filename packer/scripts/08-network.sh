#!/bin/sh
# The network, by DHCP alone. Before packages are installed on a cloud's base, whose own configuration
# goes last (80-finish.sh): an upgrade of systemd starts networkd anew.
set -eu
mkdir -p /etc/systemd/network
cat >/etc/systemd/network/80-vmrunner.network <<'CONF'
[Match]
Name=en* eth*

[Network]
DHCP=ipv4
# Nothing here waits for IPv6 or announces the machine.
LinkLocalAddressing=no
IPv6AcceptRA=no
LLMNR=no
MulticastDNS=no

[DHCPv4]
ClientIdentifier=mac
# Compute Engine's is 1460; what is larger is lost on the way.
UseMTU=yes
UseHostname=no
UseNTP=no
SendHostname=no
CONF
systemctl enable systemd-networkd.service
