#!/bin/sh
# The stage's packages, as far as a cloud base lacks them.
set -eu
stage=${VMRUNNER_STAGE:?}
platform=${VMRUNNER_PLATFORM:-local}
export DEBIAN_FRONTEND=noninteractive

apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 update
wanted=
while read -r package; do
    case $package in
    '' | '#'*) continue ;;
    linux-image-*) continue ;; # the base's kernel is the one made for its cloud
    docker-cli)
        # Ubuntu's docker.io has the client.
        apt-cache show docker-cli >/dev/null 2>&1 || continue
        ;;
    esac
    wanted="$wanted $package"
done <"$stage/packages.txt"
if [ "$platform" != local ]; then
    # The root is a partition there: cloud-init grows it with these.
    wanted="$wanted cloud-guest-utils fdisk"
fi
# shellcheck disable=SC2086
apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Dpkg::Options::=--force-confold \
    install -y --no-install-recommends $wanted
