#!/bin/sh
# A plain Debian or Ubuntu becomes what an image of ours is: late in its first boot, once. Until it
# is done `supervisor` is waiting.sh, which waits for `ready` or tells what stands in `failed`.
set -eu
lib=/usr/lib/vmrunner state=/run/vmrunner-bootstrap
export DEBIAN_FRONTEND=noninteractive
mkdir -p "$state"
exec >"$state/log" 2>&1 </dev/null

ended() {
    rm -f /usr/sbin/policy-rc.d
    if [ "$1" = 0 ]; then
        ln -s launcher "$lib/supervisor.new"
        mv -T "$lib/supervisor.new" "$lib/supervisor"
        : >"$state/ready"
    else
        { printf 'bootstrap: ' && grep . "$state/log" | tail -n 1; } >"$state/failed.new"
        mv "$state/failed.new" "$state/failed"
    fi
}
trap 'ended $?' EXIT

# The image's own timers may hold apt's locks, and a mirror may be busy.
apt() {
    tries=20
    until apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 3
    done
}

printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d # Docker starts when it is configured
chmod 0755 /usr/sbin/policy-rc.d
apt update
packages='ca-certificates docker.io iptables nftables python3'
if apt-cache show docker-cli >/dev/null 2>&1; then # elsewhere it is in docker.io
    packages="$packages docker-cli"
fi
apt install --no-install-recommends $packages
grep -qs Google /sys/class/dmi/id/product_name && export VMRUNNER_PLATFORM=gce
sh "$lib/docker.sh"
systemctl start docker.socket
