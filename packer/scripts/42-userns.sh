#!/bin/sh
# The user whose range root in a container is nobody of, where the recipe has that. Docker makes it too,
# at its first start; the local builder fills Docker's store before that, in files of these users
# (vmrunner/images/local/docker_store.py).
set -eu
if [ "${VMRUNNER_USERNS:-no}" = yes ]; then
    getent passwd dockremap || useradd --system --no-create-home --user-group dockremap
    echo dockremap:100000:65536 | tee /etc/subuid >/etc/subgid
fi
