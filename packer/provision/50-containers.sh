#!/bin/sh
# The recipe's container images, pulled or made here, in Docker's store.
set -eu
work=${VMRUNNER_WORK:?}
list=${VMRUNNER_STAGE:?}/containers.json
export DEBIAN_FRONTEND=noninteractive

case $(python3 "$work/containers.py" kinds "$list") in
'') exit 0 ;;
*made*)
    # What makes them is a guest here, and so is all that it brings.
    packages() { dpkg-query -W -f '${binary:Package}\n' | LC_ALL=C sort; }
    packages >"$work/before"
    apt-get -o Acquire::Retries=3 update
    apt-get install -y --no-install-recommends mmdebstrap debian-archive-keyring
    packages >"$work/after"
    guests=$(LC_ALL=C comm -13 "$work/before" "$work/after")
    ;;
esac

# As the image's own settings say, which came after the daemon was installed and started.
systemctl stop docker.socket docker.service containerd.service
systemctl start docker.service

python3 "$work/containers.py" load "$list"
docker image ls

systemctl stop docker.socket docker.service containerd.service
rm -f /var/lib/docker/engine-id /var/lib/docker/*/engine-id # the latter with userns
if [ -n "${guests:-}" ]; then
    # shellcheck disable=SC2086
    apt-get purge -y $guests
fi
