#!/bin/sh
# Run after each pass of the scripts: the first time it notes what is in /etc, the second time it
# fails when that is other than noted. What can be run again can be repaired by running it again.
set -eu
noted=${VMRUNNER_WORK:?}/etc.noted
now=$VMRUNNER_WORK/etc.now

(
    cd /etc
    find . -printf '%P %y %m %U:%G %l\n' | LC_ALL=C sort
    find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
) >"$now"
if [ -e "$noted" ]; then
    diff -u "$noted" "$now"
    echo "unchanged: /etc is as it was after the first time"
fi
mv "$now" "$noted"
