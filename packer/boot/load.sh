#!/bin/sh
# Runs once in the booted image, as its only service: brings the container images into Docker's
# store. The builder sets, above this text: `image` calls, one a container, as the function below
# understands them, go into `images`; `nonce` proves that the end was reached.
# Words for the builder go to the second serial port; everything else to the console.
set -eu
exec >/dev/console 2>&1
say() { echo "$*" >/dev/ttyS1; }
trap 'say "failed $?"' EXIT

stty -F /dev/ttyS1 raw -echo 2>/dev/null || true
say started
systemctl start docker.service
say docker

import() { # DEVICE NAME CHANGE…
    device=$1 name=$2
    shift 2
    docker import "$@" "$device" "$name" >/dev/null
    say "loaded $name"
}
load() { # DEVICE NAME
    docker load --quiet <"$1"
    docker image inspect "$2" >/dev/null
    say "loaded $2"
}
images
docker image ls

systemctl stop docker.socket docker.service containerd.service
rm -f /var/lib/docker/engine-id /var/lib/docker/*/engine-id # the latter with userns
clean
fstrim / || true
sync
trap - EXIT
say "done $nonce"
